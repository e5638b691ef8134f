"""External weights held by one mapping for each data file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

MANY = 256  # tensors; systems often allow 1024 open files
BYTE = 8


def map_external(model: ir.Model, beyond: int = MANY) -> None:
    """Let the external initialisers share mappings, if there are more of them than `beyond`.

    onnx_ir maps the whole file for each tensor, which takes an open file for each; a shared mapping
    takes one in all, and outlives its file. Whether the file lies where it may is checked by
    onnx_ir, with the first tensor of each.

    Raises:
        ValueError: a tensor lies outside of its file, or the file outside of the model's folder.
        OSError: the file cannot be read.

    """
    values = list(_external(model))
    if len(values) <= beyond:
        return
    files: dict[str, mmap.mmap] = {}
    for value in values:
        tensor = value.const_value
        assert isinstance(tensor, ir.ExternalTensor)
        if tensor.size == 0 or tensor.dtype.bitwidth < BYTE:
            value.const_value = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
        else:
            value.const_value = _shared(tensor, files)


def _external(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value


def _shared(
    tensor: ir.ExternalTensor, files: dict[str, mmap.mmap]
) -> ir.Tensor[np.ndarray[Any, Any]]:
    whole = files.get(tensor.path)
    if whole is None:
        tensor.numpy()
        assert tensor.raw is not None
        whole = files[tensor.path] = tensor.raw
    dtype = np.dtype(tensor.dtype.numpy()).newbyteorder("<")
    array = np.frombuffer(whole, dtype, tensor.size, tensor.offset or 0)
    shape = tensor.shape.numpy()
    return ir.Tensor(array.reshape(shape), tensor.dtype, shape=tensor.shape, name=tensor.name)
