"""ONNX files: whole, checked before they get their name, the same bytes for the same model."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime.errors import InferError, UsageError
from infer_tool.files import atomic_path, check_output, sync, temporary_prefix, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Check = Callable[[Path], None]

# A protobuf message ends at 2 GiB; below this everything fits into one file with room to spare.
INLINE_LIMIT = 1_500_000_000
PRODUCER = "infertool"


def save_onnx(
    model: ir.Model,
    path: Path,
    *,
    check: Check | None = None,
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
    copy = model.clone()
    copy.producer_name = PRODUCER
    _forget_described(copy)
    if _weight_bytes(model) <= inline_limit:
        with atomic_path(path, force=force) as temporary:
            with written(path):
                _write_inline(copy, temporary)
            _run(check, temporary, path)
    else:
        _save_external(copy, path, check, force)


def file_bytes(path: Path) -> int:
    """Size of a model file and of the data files that it names."""
    model = ir.load(path.absolute())
    data = {t.path for t in _tensors(model) if isinstance(t, ir.ExternalTensor)}
    return path.stat().st_size + sum(Path(p).stat().st_size for p in data)


def _write_inline(model: ir.Model, path: Path) -> None:
    """An inline file refers to no other: its weights are read into memory first."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)
    proto = ir.to_proto(model)
    _drop_repeated_shapes(proto.graph)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _drop_repeated_shapes(graph: Any) -> None:
    """Initialisers say their types and shapes themselves."""
    names = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.value_info if value.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _save_external(model: ir.Model, path: Path, check: Check | None, force: bool) -> None:
    """Both files are made under their final names in a folder of their own, then moved.

    A model names its data file, so neither can be checked under a temporary name. The data goes
    first: until the model follows, nothing refers to it.
    """
    data = path.with_name(f"{path.name}.data")
    check_output(path, force)
    check_output(data, force)
    with _folder_beside(path) as folder:
        files = [folder / data.name, folder / path.name]
        with written(path):
            ir.save(model, files[1], external_data=data.name)
            for file in files:
                sync(file)
        _run(check, files[1], path)
        with written(path):
            path.unlink(missing_ok=True)  # killed now, an old model must not read new data
            for file, target in zip(files, (data, path), strict=True):
                file.replace(target)


def _run(check: Check | None, temporary: Path, path: Path) -> None:
    """What is wrong is said of the file that was asked for."""
    if check is None:
        return
    try:
        check(temporary)
    except InferError as error:
        error.args = (str(error).replace(str(temporary), str(path)),)
        raise


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    with TemporaryDirectory(
        prefix=temporary_prefix(path), suffix=".tmp", dir=path.parent
    ) as folder:
        yield Path(folder)


def _forget_described(model: ir.Model) -> None:
    """A constant says its type and shape itself: saying it again made files 0.3 % larger."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if not value.is_graph_input() and not value.is_graph_output():
                value.type = value.shape = None


def _weight_bytes(model: ir.Model) -> int:
    return sum(tensor.nbytes for tensor in _tensors(model))


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value


def _check_not_own(model: ir.Model, path: Path) -> None:
    """Overwriting data that the model still reads would destroy it."""
    targets = {os.path.realpath(path), os.path.realpath(f"{path}.data")}
    for tensor in _tensors(model):
        if isinstance(tensor, ir.ExternalTensor) and os.path.realpath(tensor.path) in targets:
            raise UsageError(f"{path}: the model's own weights are there; give another name")
