"""The long tail: operators without a kernel of ours run on the `onnx` package's own definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from infer_runtime.errors import UnsupportedOpError

if TYPE_CHECKING:
    from collections.abc import Callable

# Known to answer wrongly, so that a refusal is the better answer.
_WRONG = frozenset({"BatchNormalization", "GlobalMaxPool"})


def bind(node: ir.Node, opset: int) -> Callable[..., Any]:
    """A function that computes the node by `onnx.reference`.

    Raises:
        UnsupportedOpError: the package has no definition either.

    """
    domain = "" if node.domain == "ai.onnx" else node.domain
    reason = _refusal(node, domain, opset)
    if reason:
        raise UnsupportedOpError(
            f"node {node.name or '?'}: {domain or 'ai.onnx'}::{node.op_type} has no kernel "
            f"at opset {opset} ({reason})"
        )
    model, inputs = _model_of(node, domain, opset)
    try:
        evaluator = ReferenceEvaluator(model)
    except (NotImplementedError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise UnsupportedOpError(
            f"node {node.name or '?'}: {domain or 'ai.onnx'}::{node.op_type} has no kernel "
            f"at opset {opset}"
        ) from error

    def compute(*values: Any) -> tuple[Any, ...]:
        feeds = {name: v for name, v in zip(inputs, values, strict=True) if name}
        return tuple(evaluator.run(None, feeds))

    return compute


def _refusal(node: ir.Node, domain: str, opset: int) -> str:
    if node.op_type in _WRONG:
        return "too old"
    if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        return "it holds a subgraph"
    if not onnx.defs.has(node.op_type, max_inclusive_version=opset, domain=domain):
        return "ONNX does not define it"
    return ""


def _model_of(node: ir.Node, domain: str, opset: int) -> tuple[onnx.ModelProto, list[str]]:
    """A model of this node alone; equal inputs stay one value."""
    inputs = ["" if v is None else v.name or "" for v in node.inputs]
    proto = ir.to_proto(node)
    assert isinstance(proto, onnx.NodeProto)
    unique = dict.fromkeys(name for name in inputs if name)
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [_typed(node, name) for name in unique],
        [onnx.ValueInfoProto(name=o) for o in proto.output if o],
    )
    imports = [onnx.helper.make_opsetid(domain, opset)]
    if domain:
        imports.append(onnx.helper.make_opsetid("", onnx.defs.onnx_opset_version()))
    return onnx.helper.make_model(graph, opset_imports=imports), inputs


def _typed(node: ir.Node, name: str) -> onnx.ValueInfoProto:
    value = next(v for v in node.inputs if v is not None and v.name == name)
    info = ir.to_proto(value)
    assert isinstance(info, onnx.ValueInfoProto)
    return info
