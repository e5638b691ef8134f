"""What ONNX Runtime really computes with integers: read from the graph that it made of a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime.errors import ModelError
from infer_tool.engines.common import first_line
from infer_tool.engines.onnxruntime import QUIET, failures, new_session
from infer_tool.engines.profile import MOVED
from infer_tool.extras import require
from passes.base import all_nodes
from passes.facts import macs_by_node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INTEGER = {
    "QLinearConv", "QLinearMatMul", "QGemm", "QAttention", "ConvInteger", "MatMulInteger",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits",
}  # fmt: skip
# Nodes without which no activation is an integer.
QUANTIZERS = {"QuantizeLinear", "DynamicQuantizeLinear"}


@dataclass(frozen=True)
class Deployed:
    """The share of the multiply-accumulates in integer kernels, and who computes the rest."""

    engine: str
    version: str
    macs_fraction: float
    kernels: dict[str, int]  # integer kernels and how often each occurs
    float_nodes: tuple[str, ...]  # nodes with MACs in no integer kernel, the largest first


def deployed(path: Path, model: ir.Model, sizes: Mapping[str, Sequence[int]]) -> Deployed | None:
    """Count the integer kernels of the graph that ONNX Runtime runs for a file.

    Fusing keeps the name of the node that does the multiplications, so names lead back.

    Args:
        path: the file.
        model: what was written to it.
        sizes: input shapes at which MACs are counted.

    Returns:
        None for a model without MACs or without quantised activations.

    Raises:
        ModelError: ONNX Runtime refuses the file.

    """
    macs = macs_by_node(model, sizes)
    if not macs or not any(node.op_type in QUANTIZERS for node in all_nodes(model)):
        return None
    ort = require("onnxruntime", "engines")
    integer = [n for n in all_nodes(_optimised(ort, path)) if n.op_type in INTEGER]
    names = {MOVED.sub("", node.name or "") for node in integer}
    rest = sorted((n for n in macs if n not in names), key=lambda n: (-macs[n], n))
    share = 1 - sum(macs[n] for n in rest) / sum(macs.values())
    kernels = dict(sorted(Counter(node.op_type for node in integer).items()))
    return Deployed("onnxruntime", str(ort.__version__), share, kernels, tuple(rest))


def _optimised(ort: object, path: Path) -> ir.Model:
    options = ort.SessionOptions()  # type: ignore[attr-defined]
    options.log_severity_level = QUIET
    with TemporaryDirectory(prefix="infertool-") as folder:
        target = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(target)
        # Weights stay out of the file: only the nodes are looked at.
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "weights"
        )
        try:
            new_session(ort, path, options)
        except failures() as error:
            raise ModelError(f"{path}: ONNX Runtime refuses it: {first_line(error)}") from error
        return ir.load(target)
