"""Weights that stay on disk, one mapping for each data file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

BYTE = 8


def map_external(model: ir.Model) -> None:
    """Hold every external constant by a mapping, which outlives its file.

    A mapping for each tensor, as onnx_ir makes it, would take a file descriptor for each; and the
    file would have to stay.
    """
    files: dict[str, np.ndarray[Any, Any]] = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _mapped(value.const_value, files)


def _mapped(tensor: ir.ExternalTensor, files: dict[str, np.ndarray[Any, Any]]) -> ir.TensorProtocol:
    if tensor.size == 0 or tensor.dtype.bitwidth < BYTE:
        return ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    whole = files.get(tensor.path)
    if whole is None:
        whole = files[tensor.path] = np.asarray(np.memmap(Path(tensor.path), np.uint8, "r"))
    start = tensor.offset or 0
    array = whole[start : start + tensor.nbytes].view(tensor.dtype.numpy())
    return ir.Tensor(
        array.reshape(tensor.shape.numpy()),
        dtype=tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
    )


def relocate(model: ir.Model) -> None:
    """Let external constants point to where links lead, once somebody has allowed them."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            old = value.const_value
            if isinstance(old, ir.ExternalTensor):
                file = Path(old.path).resolve()
                value.const_value = ir.ExternalTensor(
                    file.name, old.offset, old.length, old.dtype,
                    shape=old.shape, name=old.name, base_dir=file.parent,
                )  # fmt: skip
