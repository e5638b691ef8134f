"""ONNX files: whole, checked before they get their name, the same bytes for the same model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime.errors import UsageError
from infer_tool.files import atomic_path, check_output

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A protobuf message ends at 2 GiB; below this everything fits into one file with room to spare.
INLINE_LIMIT = 1_500_000_000


def save_onnx(
    model: ir.Model,
    path: Path,
    *,
    check: Callable[[Path], None] | None = None,
    force: bool = False,
    inline_limit: int = INLINE_LIMIT,
) -> None:
    """Write a model; large ones keep their weights in `<name>.data` beside the file.

    Args:
        model: it is not changed.
        path: the file to write.
        check: called with the temporary file before it gets its name; raising keeps it unwritten.
        force: overwrite.
        inline_limit: bytes of weights from which on they go to a file of their own.

    Raises:
        UsageError: see `check_output`; also for an output that is one of the model's own files.

    """
    _check_not_own(model, path)
    if weight_bytes(model) <= inline_limit:
        with atomic_path(path, force=force) as temporary:
            _write_inline(model, temporary)
            if check is not None:
                check(temporary)
        return
    _save_external(model, path, check, force)


def _write_inline(model: ir.Model, path: Path) -> None:
    path.write_bytes(ir.to_proto(_loaded(model)).SerializeToString(deterministic=True))


def _loaded(model: ir.Model) -> ir.Model:
    """A copy whose weights are in memory: an inline file refers to no other."""
    copy = model.clone()
    for graph in copy.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)
    return copy


def _save_external(
    model: ir.Model, path: Path, check: Callable[[Path], None] | None, force: bool
) -> None:
    """The data file is written under its own name, as the model names it; removed on failure."""
    data = path.with_name(f"{path.name}.data")
    check_output(data, force)
    kept = data.with_name(f".{data.name}.kept")
    if data.exists():
        data.replace(kept)
    done = False
    try:
        with atomic_path(path, force=force) as temporary:
            ir.save(model.clone(), temporary, external_data=data.name)
            if check is not None:
                check(temporary)
        done = True
    finally:
        if not done:
            data.unlink(missing_ok=True)
            if kept.exists():
                kept.replace(data)
        kept.unlink(missing_ok=True)


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initialisers."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def _check_not_own(model: ir.Model, path: Path) -> None:
    """Overwriting data that the model still reads would destroy it."""
    targets = {os.path.realpath(path), os.path.realpath(f"{path}.data")}
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and os.path.realpath(tensor.path) in targets:
                raise UsageError(f"{path}: the model's own weights are there; give another name")
