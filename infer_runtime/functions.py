"""Model-local functions: what they unfold to, before anybody unfolds them."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOCAL = "infertool"  # the domain of functions of our own
# Functions with a kernel: the digest of the body that the kernel computes. A function of the same
# name with another body is what its body says.
KERNELS = {
    "XnorConv": "203cab179069d93655c2b9bf46dd5a3fb7a774e4e935ca49d2604c009469796c",
    "XnorGemm": "b92202de402c6b8d04c52e3f7d7aa2f0f701ff01dde5f0e916ead8974c16f22e",
}
DEEPEST = 100  # calls inside calls; inliners and engines recurse
MOST_NODES = 1_000_000  # of the unfolded graph


def check_functions(model: ir.Model) -> None:
    """A few functions that call each other twice unfold to more than any memory holds.

    Raises:
        ModelError: a function calls itself, calls are too deep, or unfold to too many nodes.

    """
    calls = {key: _calls(f.all_nodes(), model.functions) for key, f in model.functions.items()}
    depth: dict[ir.OperatorIdentifier, int] = {}
    size: dict[ir.OperatorIdentifier, int] = {}
    for key in _callees_first(calls):
        depth[key] = 1 + max((depth[k] for k in calls[key]), default=0)
        inner = sum(times * size[k] for k, times in calls[key].items())
        size[key] = inner + sum(1 for _ in model.functions[key].all_nodes())
        if depth[key] > DEEPEST:
            raise ModelError(f"its functions call each other more than {DEEPEST} deep")
    outer = _calls(model.graph.all_nodes(), model.functions)
    if (nodes := sum(times * size[k] for k, times in outer.items())) > MOST_NODES:
        raise ModelError(f"its functions unfold to {nodes} nodes, more than {MOST_NODES}")


def _calls(
    nodes: Iterable[ir.Node], functions: Mapping[ir.OperatorIdentifier, ir.Function]
) -> Counter[ir.OperatorIdentifier]:
    return Counter(n.op_identifier() for n in nodes if n.op_identifier() in functions)


def _callees_first(
    calls: Mapping[ir.OperatorIdentifier, Iterable[ir.OperatorIdentifier]],
) -> list[ir.OperatorIdentifier]:
    """Every function after those that it calls."""
    done: dict[ir.OperatorIdentifier, None] = {}
    for start in calls:
        path = [start]
        open_ones = {start}
        while path:
            waiting = [k for k in calls[path[-1]] if k not in done]
            if not waiting:
                open_ones.discard(path[-1])
                done[path.pop()] = None
            elif waiting[0] in open_ones:
                raise ModelError(f"its function {waiting[0][0]}.{waiting[0][1]} calls itself")
            else:
                path.append(waiting[0])
                open_ones.add(waiting[0])
    return list(done)


def with_kernels(model: ir.Model) -> set[ir.OperatorIdentifier]:
    """Functions of the model that a kernel computes instead of their bodies, bit for bit."""
    return {
        key
        for key in model.functions
        if key[0] == LOCAL and key[1] in KERNELS and digest(model, key) == KERNELS[key[1]]
    }


def digest(model: ir.Model, key: ir.OperatorIdentifier) -> str:
    """Says what a function computes, whatever its values are called."""
    return hashlib.sha256("\n".join(_lines(model, key)).encode()).hexdigest()


def _lines(model: ir.Model, key: ir.OperatorIdentifier) -> Iterable[str]:
    """A line for each node; values by the order in which they appear."""
    function = model.functions[key]
    numbers = {id(value): i for i, value in enumerate(function.inputs)}
    yield f"{len(numbers)} {sorted(function.attributes)}"
    for node in function:
        inputs = [None if v is None else numbers.get(id(v)) for v in node.inputs]
        given = [_text(a) for _, a in sorted(node.attributes.items())]
        yield f"{node.domain} {node.op_type} {inputs} {given} {len(node.outputs)}"
        if node.op_identifier() in model.functions:
            yield digest(model, node.op_identifier())
        for value in node.outputs:
            numbers[id(value)] = len(numbers)
    yield str([numbers[id(value)] for value in function.outputs])


def _text(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return f"{attribute.name}=@{attribute.ref_attr_name}"
    if attribute.type == ir.AttributeType.TENSOR:
        array = attribute.as_tensor().numpy()
        return f"{attribute.name}={array.dtype}{array.shape}{array.tobytes().hex()}"
    value = attribute.value
    return f"{attribute.name}={list(value) if isinstance(value, tuple) else value}"
