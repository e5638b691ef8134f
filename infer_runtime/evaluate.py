"""One node: attributes to keywords, kernel, outputs as a tuple, errors that name the node."""

from __future__ import annotations

import difflib
import inspect
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import KernelError, LimitError, ModelError, UnsupportedOpError
from infer_runtime.ops import onnx_fallback
from infer_runtime.registry import find_kernel, known_ops, standard_domain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from infer_runtime.arrays import Array
    from infer_runtime.registry import Kernel, Library

# What a kernel raises for values that it cannot compute; anything else is a bug of the kernel.
VALUE_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


def bind(node: ir.Node, opset: int, library: Library = "numpy") -> Callable[..., Any]:
    """The function from the inputs of `node` (and its subgraphs, by keyword) to its outputs.

    For library "torch" a kernel that only works on NumPy is wrapped: it takes and returns
    tensors, and refuses those that ask for a gradient.

    Raises:
        UnsupportedOpError: nobody computes the operator, or one of its attributes.
        ModelError: a required input or attribute is missing.

    """
    if reads_only_first(node):
        cast = bind(_cast_of(node), opset, library)
        return lambda x, *_: cast(x)
    kernel = find_kernel(node.domain, node.op_type, opset)
    if kernel is None:
        compute = _delegated(node, opset)
    else:
        own = find_kernel(node.domain, node.op_type, opset, library)
        compute = _with_attributes(own or kernel, node, opset)
        if own is not None:
            return compute
    if library == "numpy":
        return compute
    from infer_runtime.torch_library import through_numpy

    return through_numpy(compute, describe(node))


def reads_only_first(node: ir.Node) -> bool:
    """Is this a CastLike towards a declared type, which needs no value of its second input?"""
    if node.op_type != "CastLike" or standard_domain(node.domain) or len(node.inputs) != 2:
        return False
    like = node.inputs[1]
    return like is not None and like.dtype is not None and node.inputs[0] is not None


def _cast_of(node: ir.Node) -> ir.Node:
    """The Cast that a CastLike towards a declared type is."""
    like = node.inputs[1]
    assert like is not None
    assert like.dtype is not None
    attributes = [ir.AttrInt64("to", like.dtype.value), *node.attributes.values()]
    return ir.Node("", "Cast", [ir.Value(name="x")], attributes, name=node.name, num_outputs=1)


def _delegated(node: ir.Node, opset: int) -> Callable[..., Any]:
    try:
        return onnx_fallback.bind(node, opset)
    except UnsupportedOpError as error:
        names = [name for domain, name in known_ops() if domain == standard_domain(node.domain)]
        close = difflib.get_close_matches(node.op_type, names, n=3)
        hint = f"; close to it: {', '.join(close)}" if close and node.op_type not in close else ""
        raise UnsupportedOpError(f"{error}{hint}") from error


def _with_attributes(kernel: Kernel, node: ir.Node, opset: int) -> Callable[..., Any]:
    inputs, keywords, needed = _signature(kernel)
    for i, name in enumerate(inputs):
        if i >= len(node.inputs) or node.inputs[i] is None:
            raise ModelError(f"{describe(node)}: its input {name!r} is missing")
    attributes = attribute_values(node)
    if unknown := sorted(attributes.keys() - keywords) if keywords is not None else []:
        raise UnsupportedOpError(
            f"{describe(node)} at opset {opset}: no kernel knows its attribute {unknown[0]!r}"
        )
    if missing := sorted(needed - node.attributes.keys()):
        raise ModelError(f"{describe(node)}: its attribute {missing[0]!r} is missing")
    if keywords is not None and "n_outputs" in keywords:
        attributes["n_outputs"] = len(node.outputs)
    return partial(kernel, **attributes) if attributes else kernel


@cache
def _signature(kernel: Kernel) -> tuple[tuple[str, ...], frozenset[str] | None, frozenset[str]]:
    """Required inputs, the attributes that a kernel takes (None: any), those that it needs."""
    parameters = inspect.signature(kernel).parameters.values()
    inputs = tuple(
        p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty
    )
    named = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    needed = frozenset(p.name for p in named if p.default is p.empty)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return inputs, None, needed
    return inputs, frozenset(p.name for p in named), needed


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


def settled(value: Any) -> Any:
    """NumPy makes scalars of arrays without axes; kernels expect arrays."""
    return np.asarray(value) if isinstance(value, np.generic) else value


def outputs_of(result: Any, count: int) -> tuple[Any, ...]:
    """What a kernel returned, as a tuple with at least the outputs that the node has."""
    results = result if isinstance(result, tuple) else (result,)
    if len(results) < count:
        raise ValueError(f"{len(results)} of {count} outputs known")
    return results


def failure(label: str, inputs: Sequence[Any], error: BaseException) -> KernelError | LimitError:
    """The error of a node that cannot be computed: it names the node and the shapes."""
    shapes = ", ".join("-" if x is None else _brief(x) for x in inputs)
    if isinstance(error, MemoryError):
        reason = str(error) or "needs more memory than there is"
        return LimitError(f"{label} with inputs ({shapes}): {reason}")
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return KernelError(f"{label} with inputs ({shapes}): {reason}")


def run_node(node: ir.Node, inputs: Sequence[Array | None], opset: int) -> tuple[Array, ...]:
    """Compute a node without subgraphs from the values of its inputs.

    Raises:
        UnsupportedOpError: no kernel for the operator.
        KernelError: the kernel cannot compute these values.
        LimitError: the result does not fit into the memory.

    """
    if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        raise UnsupportedOpError(f"{describe(node)} holds a subgraph; run it in a Session")
    compute = bind(node, opset)
    try:
        with np.errstate(all="ignore"):
            results = outputs_of(compute(*inputs), len(node.outputs))
    except VALUE_ERRORS as error:
        raise failure(describe(node), inputs, error) from error
    return tuple(settled(r) for r in results)


def describe(node: ir.Node) -> str:
    """The node for an error text."""
    domain = standard_domain(node.domain)
    return f"node {node.name or '?'} ({domain + '::' if domain else ''}{node.op_type})"


def _brief(value: Any) -> str:
    if hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__
