"""The exporter of scripted and traced modules, which torch will remove; child side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from infer_tool.quiet import quiet

if TYPE_CHECKING:
    from pathlib import Path

    from infer_tool.importers.torch_inputs import InputSpec

LEGACY_OPSET = 17  # the newest that it writes completely
ROUTE = "legacy exporter"


def export(module: Any, specs: list[InputSpec], given: list[Any], folder: Path) -> ir.Model:
    """Convert; what it says of output sizes are those of the example, and dropped.

    It writes recurrent layers and dynamic branches as ONNX has them, where torch.export unrolls
    the one and refuses the other.
    """
    path = folder / "legacy.onnx"
    axes = {s.name: {i: d for i, d in enumerate(s.shape) if isinstance(d, str)} for s in specs}
    with quiet():
        torch.onnx.export(
            module, tuple(given), str(path), dynamo=False, opset_version=LEGACY_OPSET,
            input_names=[s.name for s in specs], dynamic_axes=axes,
        )  # fmt: skip
    model = ir.load(path)
    for value in model.graph.outputs:
        value.shape = None
    return model
