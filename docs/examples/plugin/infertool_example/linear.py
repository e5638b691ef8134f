"""An importer: linear models as text, a line `linear`, then the matrix, one row a line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import ModelError
from infer_tool.importers import Imported, ImportOptions
from infer_tool.importers.formats import Format
from infer_tool.importers.normalise import normalise

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = Format("Linear model as text", "its first line", __name__)
FIRST_LINE = b"linear\n"


def recognises(path: Path, head: bytes) -> bool:
    """By the first bytes; `path` is there for formats that need more."""
    return head.startswith(FIRST_LINE)


def load(source: str, options: ImportOptions) -> Imported:
    """Read the matrix; the reference that the import is compared with is NumPy."""
    try:
        weight = np.loadtxt(source, dtype=np.float32, skiprows=1, ndmin=2)
    except ValueError as error:
        raise ModelError(f"{source}: {error}; expected rows of as many numbers") from error
    rows, columns = weight.shape
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 20]>
        linear (float[N,{rows}] x, float[{rows},{columns}] w) => (float[N,{columns}] y)
        {{ y = MatMul(x, w) }}"""
    )
    value = model.graph.inputs.pop()
    value.const_value = ir.tensor(weight, name="w")
    model.graph.register_initializer(value)

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": feeds["x"] @ weight}

    return Imported(normalise(model, source), "linear", Path(source), run)
