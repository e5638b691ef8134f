"""Weights behind symbolic links, as in the cache of Hugging Face."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir


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
