"""The long tail: operators without a kernel of ours run on the `onnx` package's own definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime.errors import UnsupportedOpError
from infer_runtime.registry import standard_domain

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

# Old versions of these are known to answer wrongly there: a refusal is the better answer.
_WRONG = frozenset({"BatchNormalization", "GlobalMaxPool"})
_LOAD_ERRORS = (NotImplementedError, RuntimeError, TypeError, ValueError, KeyError, AttributeError)


def bind(node: ir.Node, opset: int) -> Callable[..., Any]:
    """A function that computes the node by `onnx.reference`.

    Raises:
        UnsupportedOpError: the package has no definition either.

    """
    from onnx.reference import ReferenceEvaluator

    domain = standard_domain(node.domain)
    if reason := _refusal(node, domain, opset):
        raise _unsupported(node, domain, opset, reason)
    model = _model_of(node, domain, opset)
    try:
        evaluator = ReferenceEvaluator(model)
    except _LOAD_ERRORS as error:
        raise _unsupported(node, domain, opset, "the onnx package cannot run it") from error
    names = ["" if v is None else v.name or "" for v in node.inputs]

    def compute(*values: Any) -> tuple[Any, ...]:
        feeds = {name: v for name, v in zip(names, values, strict=True) if name}
        results = iter(evaluator.run(None, feeds))
        return tuple(next(results) if o.name else None for o in node.outputs)

    return compute


def _refusal(node: ir.Node, domain: str, opset: int) -> str:
    import onnx

    if not onnx.defs.has(node.op_type, max_inclusive_version=opset, domain=domain):
        return "ONNX does not define it"
    if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        return "it holds a subgraph"
    return "too old" if node.op_type in _WRONG else ""


def _unsupported(node: ir.Node, domain: str, opset: int, reason: str) -> UnsupportedOpError:
    return UnsupportedOpError(
        f"{domain or 'ai.onnx'}::{node.op_type} at opset {opset} has no kernel: {reason} "
        f"(node {node.name or '?'})"
    )


def _model_of(node: ir.Node, domain: str, opset: int) -> onnx.ModelProto:
    """A model of this node alone."""
    import onnx

    given = {v.name: v for v in node.inputs if v is not None and v.name}
    graph = onnx.GraphProto(
        name="node",
        node=[ir.to_proto(node)],
        input=[ir.to_proto(v) for v in given.values()],
        output=[onnx.ValueInfoProto(name=o.name) for o in node.outputs if o.name],
    )
    imports = [onnx.helper.make_opsetid(domain, opset)]
    if domain:
        imports.append(onnx.helper.make_opsetid("", onnx.defs.onnx_opset_version()))
    return onnx.helper.make_model(graph, opset_imports=imports)
