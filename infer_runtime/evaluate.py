"""One node: attributes to keywords, the kernel, its outputs as a tuple, errors that name the node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import KernelError, UnsupportedOpError
from infer_runtime.ops import onnx_fallback
from infer_runtime.registry import find_kernel, known_ops

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Array = np.ndarray[Any, Any]

# What a kernel raises for values that it cannot compute; anything else is a bug of the kernel.
_VALUE_ERRORS = (ValueError, IndexError, TypeError, ZeroDivisionError, KeyError, OverflowError)


def attribute_values(node: ir.Node) -> dict[str, Any]:
    """Attributes as Python values: numbers, strings, tuples, arrays; graphs stay graphs."""
    values = {}
    for name, attribute in node.attributes.items():
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            value = value.numpy()
        elif isinstance(value, (list, tuple)):
            value = tuple(value)
        values[name] = value
    return values


def bind(node: ir.Node, opset: int) -> Callable[..., Any]:
    """The function that computes `node` from its inputs; UnsupportedOpError when nobody can."""
    kernel = find_kernel(node.domain, node.op_type, opset)
    attributes = attribute_values(node)
    if kernel is None:
        return onnx_fallback.bind(node, opset)
    # Attributes of other tools' making (an unknown name) must not be dropped in silence.
    if getattr(kernel, "wants_outputs", False):
        attributes["n_outputs"] = len(node.outputs)

    def compute(*inputs: Any) -> Any:
        return kernel(*inputs, **attributes)

    return compute


def call(node: ir.Node, compute: Callable[..., Any], inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Run a bound kernel; KernelError naming the node and the shapes it got."""
    try:
        with np.errstate(all="ignore"):
            result = compute(*inputs)
    except _VALUE_ERRORS as error:
        shapes = ", ".join("-" if x is None else _describe(x) for x in inputs)
        raise KernelError(
            f"node {node.name or '?'} ({node.op_type}) with inputs {shapes}: {error}"
        ) from error
    return result if isinstance(result, tuple) else (result,)


def run_node(node: ir.Node, inputs: Sequence[Array | None], opset: int) -> tuple[Array, ...]:
    """Compute a node without subgraphs from the values of its inputs.

    Raises:
        UnsupportedOpError: no kernel for the operator.
        KernelError: the kernel cannot compute these values.

    """
    return call(node, bind(node, opset), inputs)


def unsupported(nodes: Sequence[ir.Node], opset: int) -> UnsupportedOpError:
    """One error for all nodes that have no kernel, with close names."""
    from difflib import get_close_matches

    names = sorted({f"{n.domain or 'ai.onnx'}::{n.op_type}" for n in nodes})
    close = get_close_matches(nodes[0].op_type, [name for _, name in known_ops()], n=2)
    hint = f"; close: {', '.join(close)}" if close else ""
    return UnsupportedOpError(
        f"no kernel for {', '.join(names)} at opset {opset} (node {nodes[0].name or '?'}){hint}"
    )


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__
