"""One node: attributes to keywords, kernel, outputs as a tuple, errors that name the node."""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import KernelError, UnsupportedOpError
from infer_runtime.ops import onnx_fallback
from infer_runtime.registry import find_kernel, standard_domain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from infer_runtime.arrays import Array
    from infer_runtime.registry import Kernel

# What a kernel raises for values that it cannot compute; anything else is a bug of the kernel.
_VALUE_ERRORS = (ValueError, IndexError, TypeError, ZeroDivisionError, KeyError, OverflowError)


def bind(node: ir.Node, opset: int) -> Callable[..., Any]:
    """The function from the inputs of `node` (and its subgraphs, by keyword) to its outputs.

    Raises:
        UnsupportedOpError: nobody computes the operator, or one of its attributes.

    """
    kernel = find_kernel(node.domain, node.op_type, opset)
    if kernel is None:
        return onnx_fallback.bind(node, opset)
    keywords = _keywords(kernel)
    attributes = attribute_values(node)
    if unknown := sorted(attributes.keys() - keywords) if keywords is not None else []:
        raise UnsupportedOpError(
            f"{describe(node)} at opset {opset}: no kernel knows its attribute {unknown[0]!r}"
        )
    if keywords is not None and "n_outputs" in keywords:
        attributes["n_outputs"] = len(node.outputs)
    return partial(kernel, **attributes)


@cache
def _keywords(kernel: Kernel) -> frozenset[str] | None:
    """The attributes that a kernel takes; None for any."""
    parameters = inspect.signature(kernel).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def attribute_values(node: ir.Node) -> dict[str, Any]:
    """Attributes as numbers, strings, tuples and arrays; subgraphs are left out."""
    values: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.GRAPH:
            continue
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            value = value.numpy()
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


def call(node: ir.Node, compute: Callable[..., Any], inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Run a bound kernel.

    Raises:
        KernelError: it cannot compute these values; the text names the node and the shapes.

    """
    try:
        with np.errstate(all="ignore"):
            result = compute(*inputs)
    except _VALUE_ERRORS as error:
        shapes = ", ".join("-" if x is None else _brief(x) for x in inputs)
        raise KernelError(f"{describe(node)} with inputs ({shapes}): {error}") from error
    results = result if isinstance(result, tuple) else (result,)
    if len(results) < len(node.outputs):
        raise KernelError(f"{describe(node)}: {len(results)} of {len(node.outputs)} outputs known")
    # NumPy makes scalars of arrays without axes.
    return tuple(np.asarray(r) if isinstance(r, np.generic) else r for r in results)


def run_node(node: ir.Node, inputs: Sequence[Array | None], opset: int) -> tuple[Array, ...]:
    """Compute a node without subgraphs from the values of its inputs.

    Raises:
        UnsupportedOpError: no kernel for the operator.
        KernelError: the kernel cannot compute these values.

    """
    if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        raise UnsupportedOpError(f"{describe(node)} holds a subgraph; run it in a Session")
    return call(node, bind(node, opset), inputs)


def describe(node: ir.Node) -> str:
    """The node for an error text."""
    domain = standard_domain(node.domain)
    return f"node {node.name or '?'} ({domain + '::' if domain else ''}{node.op_type})"


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__
