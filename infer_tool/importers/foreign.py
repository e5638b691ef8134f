"""What importers share that convert in a child process: reading and proving its result."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime.errors import MissingExtraError, ModelError
from infer_tool.extras import interpreter
from infer_tool.importers.formats import FORMATS
from infer_tool.importers.gate import check
from infer_tool.importers.normalise import normalise
from infer_tool.importers.onnx import check_tensors, read
from infer_tool.importers.torch_inputs import parse_inputs
from infer_tool.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from infer_tool.importers import Imported, ImportOptions, Run

MODEL = "model.onnx"  # what the child leaves in the worker's folder
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


def load_framework(
    source: str,
    options: ImportOptions,
    kind: str,
    path: Path | None = None,
) -> Imported:
    """Import through the module of this package that is named as its kind.

    Its child runs in the Python that the environment variable INFERTOOL_<KIND>_PYTHON names, for
    frameworks that cannot be installed beside the others.

    Raises:
        UsageError: an option is wrong, or --input is missing where the source is code.
        ModelError: it cannot be read or converted, or computes something else.
        MissingExtraError: the framework is not installed.
        LimitError: no answer in time.

    """
    from infer_tool.importers import Imported

    specs = parse_inputs(source, options.input) if path is None or options.input else []
    python = interpreter(kind)
    missing = FORMATS[kind].missing
    if missing:
        raise MissingExtraError(f"{missing[0]} is not installed; {FORMATS[kind].fix}")
    asked = [{"name": s.name, "shape": s.shape, "dtype": s.dtype.name} for s in specs]
    worker = Worker(f"infer_tool.importers.{kind}", source, {"input": asked}, python=python)

    def finish(model: ir.Model) -> None:
        for values, names in (
            (model.graph.inputs, worker.facts["inputs"]),
            (model.graph.outputs, worker.facts["outputs"]),
        ):
            for value, name in zip(values, names, strict=True):
                value.name = name
        name_dimensions(model, {s.name: s.shape for s in specs}, batch=False)
        for value, shape in zip(model.graph.outputs, worker.facts.get("shapes", ()), strict=False):
            value.shape = ir.Shape(shape)

    model = read_converted(worker.folder / MODEL, source, finish)
    prove(model, worker, source)
    return Imported(model, kind, path, worker, route=worker.facts["route"])


def name_dimensions(
    model: ir.Model, stated: Mapping[str, Sequence[int | str]], *, batch: bool
) -> None:
    """Dynamic dimensions as the user names them, or after input and axis.

    Args:
        model: converters number what they do not know; those names go.
        stated: shapes of inputs.
        batch: whether the first dimension of all that it takes and gives is the batch; of a single
            input it is in any case.

    """
    inputs = model.graph.inputs
    for node in model.graph.all_nodes():
        for value in node.outputs:
            _name_open(value, [])
    for value in inputs:
        names: list[str | None] = [f"{value.name}_{axis}" for axis in range(len(value.shape or ()))]
        if batch or len(inputs) == 1:
            names[:1] = ["batch"]
        for axis, dimension in enumerate(stated.get(value.name or "", ())):
            names[axis] = str(dimension)
        _name_open(value, names)
    for value in model.graph.outputs if batch else ():
        _name_open(value, ["batch"])


def _name_open(value: ir.Value, names: Sequence[str | None]) -> None:
    if value.shape is not None:
        known = [d if isinstance(d, int) and d >= 0 else None for d in value.shape]
        pairs = zip_longest(known, names[: len(known)])
        value.shape = ir.Shape([name if d is None else d for d, name in pairs])
