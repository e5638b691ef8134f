"""The long tail: operators without a kernel of ours run on the `onnx` package's own definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import UnsupportedOpError
from infer_runtime.registry import standard_domain

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

_MODULES = {
    "": "",
    "ai.onnx.ml": ".aionnxml",
    "ai.onnx.preview": ".aionnx_preview",
    "ai.onnx.preview.training": ".aionnx_preview_training",
}
_LARGEST_OPSET = 1 << 20
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
    (proto,) = model.graph.node

    def compute(*values: Any) -> tuple[Any, ...]:
        feeds = {name: v for name, v in zip(proto.input, values, strict=True) if name}
        results = iter(evaluator.run(None, feeds))
        return tuple(_as_ours(next(results)) if name else None for name in proto.output)

    return compute


def can_delegate(domain: str, name: str) -> bool:
    """Does the package define the operator (not: every version and type of it)?"""
    from importlib import import_module

    from onnx.reference.op_run import RuntimeContextError

    if domain not in _MODULES:
        return False
    try:
        import_module(f"onnx.reference.ops{_MODULES[domain]}").load_op(domain, name, None)
    except RuntimeContextError:
        return True  # a definition that depends on the types of its inputs
    except _LOAD_ERRORS:
        return False
    return True


def _as_ours(value: Any) -> Any:
    """Strings are arrays of objects, which do not cut long ones off."""
    is_text = isinstance(value, np.ndarray) and value.dtype.kind == "U"
    return value.astype(object) if is_text else value


def _refusal(node: ir.Node, domain: str, opset: int) -> str:
    import onnx

    name: object = node.op_type  # bytes, when a file holds no valid text
    if not isinstance(name, str):
        return "its name is not text"
    if opset < 1 or opset > _LARGEST_OPSET:
        return "there is no such opset"
    if not onnx.defs.has(node.op_type, max_inclusive_version=opset, domain=domain):
        return "ONNX does not define it"
    if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        return "it holds a subgraph"
    return ""


def _unsupported(node: ir.Node, domain: str, opset: int, reason: str) -> UnsupportedOpError:
    return UnsupportedOpError(
        f"{domain or 'ai.onnx'}::{node.op_type} at opset {opset} has no kernel: {reason} "
        f"(node {node.name or '?'})"
    )


def _model_of(node: ir.Node, domain: str, opset: int) -> onnx.ModelProto:
    """A model of this node alone, its inputs and outputs named by position."""
    import onnx

    given = {f"in{i}": v for i, v in enumerate(node.inputs) if v is not None}
    proto = onnx.NodeProto(
        op_type=node.op_type,
        domain=domain,
        input=["" if v is None else f"in{i}" for i, v in enumerate(node.inputs)],
        output=["" if o.name == "" else f"out{i}" for i, o in enumerate(node.outputs)],
        attribute=[ir.to_proto(a) for a in node.attributes.values()],
    )
    graph = onnx.GraphProto(
        name="node",
        node=[proto],
        input=[_typed(name, value) for name, value in given.items()],
        output=[onnx.ValueInfoProto(name=name) for name in proto.output if name],
    )
    imports = [onnx.helper.make_opsetid(domain, opset)]
    if domain:
        imports.append(onnx.helper.make_opsetid("", onnx.defs.onnx_opset_version()))
    return onnx.helper.make_model(graph, opset_imports=imports)


def _typed(name: str, value: ir.Value) -> onnx.ValueInfoProto:
    """The input as declared: definitions that depend on types or shapes need to know them."""
    return ir.to_proto(ir.Value(name=name, type=value.type, shape=value.shape))
