"""What importers share that convert in a child process: reading and proving its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_runtime.errors import ModelError
from infer_tool.importers.gate import check
from infer_tool.importers.normalise import normalise
from infer_tool.importers.onnx import check_tensors, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx_ir as ir

    from infer_tool.importers import Run

# Of the largest value: a wrong conversion is further off than sums in another order.
TOLERANCE = 1e-4


def read_converted(path: Path, source: str, finish: Callable[[ir.Model], None]) -> ir.Model:
    """Read what a converter wrote for `source`, which users see in errors; checked and normalised.

    `finish` repairs the names before the graph is normalised.

    Raises:
        UnsupportedOpError: operators that ONNX has not, all of them.
        ModelError: the file is not valid.

    """
    try:
        model = read(path)
        check(model, source)
        check_tensors(path, model)
        finish(model)
        return normalise(model, source)
    except ModelError as error:
        raise type(error)(
            str(error).removeprefix(f"{path}: ").removeprefix(f"{source}: ")
        ) from error


def prove(model: ir.Model, reference: Run, source: str) -> None:
    """Compare with the source framework on seeded inputs of two shapes.

    Where the framework itself cannot run on made inputs nothing is said: they need the sizes that
    the user gives, and every command that writes compares with these again.

    Raises:
        MismatchError: the outputs differ.
        ModelError: the graph cannot be computed.

    """
    from infer_runtime import Session
    from infer_tool.steps import proof_feeds, require_equal, run_all, worst_over

    session = Session(model)
    feeds = proof_feeds(session.inputs, seed=0)
    try:
        wanted = run_all(reference, feeds)
    except ModelError:
        return
    record = worst_over(wanted, run_all(session.run, feeds))
    require_equal(record, TOLERANCE, f"{source}: the converted graph differs from its source")
