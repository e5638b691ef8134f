"""Scaled dot-product attention from its products and its Softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from passes.base import RewriteRule, is_op
from passes.graph import add_initializer, fresh_name
from passes.match import Dims, dims, inner, only_user, producer, replace_node
from passes.merge_transposes import permutation
from passes.permutations import is_still
from passes.product import product

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
RANK = 4  # batch, heads, positions, size


@dataclass(frozen=True)
class FuseAttention(RewriteRule):
    """One operator; ONNX Runtime computes it as fast or faster (benchmarks/README.md).

    Given:  s = MatMul(q, Transpose<0, 1, 3, 2>(k)) * scale + mask
            y = MatMul(Softmax(s), v)         q, k, v: [batch, heads, positions, size]
    Result: y = Attention<scale>(q, k, v, mask)   the scale may stand before the product too
    """

    name: ClassVar[str] = "fuse-attention"
    since: ClassVar[int] = 23

    def match(self, node: ir.Node) -> bool:
        """A product with a Softmax."""
        return is_op(node, "MatMul") and producer(node.inputs[0], "Softmax") is not None

    def check(self, node: ir.Node) -> str | None:
        """Nobody sees the parts, and all sizes agree without broadcasting."""
        parts = _parts(node)
        if isinstance(parts, str):
            return parts
        if node.outputs[0].dtype not in FLOATS:
            return "engines do not take this type"
        if not (math.isfinite(parts.scale) and parts.scale > 0):
            return "the scale is not positive"
        return _sizes_reason(parts, node.inputs[1]) or _mask_reason(parts)

    def rewrite(self, node: ir.Node) -> None:
        """One node; the keys are turned to the layout of the queries."""
        parts = _parts(node)
        assert not isinstance(parts, str)
        inputs = [parts.query, _keys(node, parts.turn), node.inputs[1]]
        if parts.mask is not None:
            inputs.append(_full_mask(node, parts))
        replace_node(node, "Attention", inputs, {"scale": parts.scale})


@dataclass(frozen=True)
class _Parts:
    """`turn` is the Transpose that brings the keys to [batch, heads, size, positions]."""

    query: ir.Value
    turn: ir.Node
    scale: float
    scores: ir.Value
    mask: ir.Value | None


def _parts(node: ir.Node) -> _Parts | str:
    softmax = inner(node.inputs[0], node, "Softmax")
    if softmax is None:
        return "others read the weights"
    if softmax.attributes.get_int("axis", -1) not in (-1, RANK - 1):
        return "the Softmax is not over the keys"
    scores, user, mask = softmax.inputs[0], softmax, None
    if (add := inner(scores, softmax, "Add")) is not None:
        found = [i for i, v in enumerate(add.inputs) if _scaled_product(v, add) is not None]
        if len(found) != 1:
            return "it adds no mask to a product"
        scores, user, mask = add.inputs[found[0]], add, add.inputs[1 - found[0]]
    scaled = _scaled_product(scores, user)
    if scaled is None or scores is None:
        return "others read the scores, or they are no product"
    matmul, scale = scaled
    query, factor = _unscaled(matmul.inputs[0], matmul)
    keys, other = _unscaled(matmul.inputs[1], matmul)
    turn = producer(keys, "Transpose")
    perm = None if turn is None else permutation(turn)
    if turn is None or perm is None or len(perm) != RANK:
        return "the keys are not transposed"
    _, last = _unscaled(turn.inputs[0], turn)
    return _Parts(query, turn, scale * factor * other * last, matmul.outputs[0], mask)


def _scaled_product(value: ir.Value | None, user: ir.Node) -> tuple[ir.Node, float] | None:
    """The MatMul behind a value, and what it is multiplied by."""
    if value is None:
        return None
    source, scale = _unscaled(value, user)
    before = producer(source, "MatMul")
    alone = only_user(source) is not None and (source is not value or only_user(value) is user)
    return (before, scale) if before is not None and alone else None


def _unscaled(value: ir.Value | None, user: ir.Node) -> tuple[ir.Value, float]:
    """What is multiplied by numbers to make a value that only `user` reads."""
    assert value is not None
    found = product(inner(value, user, "Mul", "Div"))
    if found is None or len(found.factors) != 1:
        return value, 1.0
    return found.factors[0].value, found.scale


def _sizes_reason(parts: _Parts, values: ir.Value | None) -> str | None:
    sizes = [dims(v) for v in (parts.query, parts.turn.outputs[0], values)]
    known = [s[:2] for s in sizes if s is not None and len(s) == RANK and None not in s[:2]]
    if len(known) < len(sizes) or len(set(known)) > 1:
        return "batch and heads are not known to be the same everywhere"
    return None


def _mask_reason(parts: _Parts) -> str | None:
    """ONNX Runtime wants one number for each query and key; batch and heads may be 1."""
    if parts.mask is None:
        return None
    sizes, scores = dims(parts.mask), dims(parts.scores)
    if sizes is None or scores is None or len(sizes) not in (2, RANK):
        return "the mask is not known to have two axes or four"
    first = (1,) * (RANK - len(sizes))
    pairs = list(zip((*first, *sizes), scores, strict=True))
    if any(m is None or m not in (1, s) for m, s in pairs) or pairs[3][0] != pairs[3][1]:
        return "the mask is not one number for each key"
    return None


def _keys(node: ir.Node, turn: ir.Node) -> ir.Value:
    """The keys as [batch, heads, positions, size], not scaled."""
    perm, (source, _) = permutation(turn), _unscaled(turn.inputs[0], turn)
    assert perm is not None
    wanted = [perm[0], perm[1], perm[3], perm[2]]
    if is_still(wanted):
        return source
    return _insert(node, "Transpose", [source], {"perm": wanted}, "keys")


def _full_mask(node: ir.Node, parts: _Parts) -> ir.Value:
    """The mask with a row for each query; layers that share it share its expansion too."""
    mask, scores = parts.mask, dims(parts.scores)
    assert mask is not None
    assert scores is not None
    sizes: Dims = dims(mask) or ()
    if sizes[-2] == scores[-2]:
        return mask
    rows = _insert(node, "Shape", [parts.query], {"start": 2, "end": 3}, "queries")
    one = add_initializer(node.graph, f"{node.outputs[0].name}_one", np.array([1], np.int64))
    shape = _insert(node, "Concat", [rows, one], {"axis": 0}, "shape")
    full = _insert(node, "Expand", [mask, shape], {}, "mask")
    rows.type = shape.type = one.type
    rows.shape, shape.shape, full.type = ir.Shape([1]), ir.Shape([2]), mask.type
    return full


def _insert(
    node: ir.Node, op_type: str, inputs: list[ir.Value], attributes: dict[str, Any], what: str
) -> ir.Value:
    """The result of a new node before `node`."""
    graph = node.graph
    assert graph is not None
    new = ir.node(op_type, inputs, attributes, name=fresh_name(graph, f"{node.name}_{what}"))
    graph.insert_before(node, new)
    new.outputs[0].name = fresh_name(graph, f"{node.outputs[0].name}_{what}")
    new.outputs[0].type = inputs[0].type
    return new.outputs[0]
