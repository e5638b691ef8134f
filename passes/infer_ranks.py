"""Numbers of dimensions that follow from what reads a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from passes.base import CLEANING, Outcome, Pass, is_op
from passes.match import argument, ints, rank
from passes.traits import is_unary

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST = 8
ANY = (1 << (LARGEST + 1)) - 1  # bit r: the value may have r dimensions
RECURRENT = ("LSTM", "GRU", "RNN")
CERTAIN = "infertool.rank"  # on the output of an If: the rank is proved, not read from the file


@dataclass(frozen=True)
class InferRanks(Pass):
    """Changes no node, and therefore counts no change.

    torch writes `squeeze` as an If whose branches have different ranks, and asks for the rank
    later. Only one of them is right where an LSTM or a Conv reads the result.

    Given:  s = If(c, Squeeze(x), Identity(x))   y = LSTM(Unsqueeze(s), ...)   x: rank 3
    Result: the rank of s is 2; with the other branch the model could not run
    """

    name: ClassVar[str] = "infer-ranks"
    level: ClassVar[int] = CLEANING

    def apply(self, model: ir.Model) -> Outcome:
        """Forwards what is possible, then backwards what is needed."""
        if not any(is_op(n, "If") for n in model.graph):
            return Outcome(0)
        ranks = _Ranks()
        _forwards(model.graph, ranks)
        _backwards(model.graph, ranks)
        _note(model.graph, ranks)
        return Outcome(0)


@dataclass
class _Ranks:
    """Possible ranks of values; a branch sees those around it and keeps its own."""

    own: dict[int, int] = field(default_factory=dict)
    outer: _Ranks | None = None

    def of(self, value: ir.Value | None) -> int:
        scope: _Ranks | None = self
        while value is not None and scope is not None:
            if id(value) in scope.own:
                return scope.own[id(value)]
            scope = scope.outer
        return _recorded(value)

    def narrow(self, value: ir.Value | None, possible: int) -> None:
        if value is not None:
            self.own[id(value)] = self.of(value) & possible


def _recorded(value: ir.Value | None) -> int:
    size = rank(value)
    return ANY if size is None or size > LARGEST else 1 << size


def _forwards(graph: ir.Graph, ranks: _Ranks) -> None:
    for node in graph:
        branches = list(_branches(node))
        for branch in branches:
            _forwards(branch, ranks)
        certain = not branches and all(ranks.of(v).bit_count() == 1 for v in node.inputs if v)
        for index, output in enumerate(node.outputs):
            # What the file says of a value may hold for one of the possible ranks only.
            known = _recorded(output) if certain else ANY
            ranks.own[id(output)] = known & _after(node, index, ranks)


def _branches(node: ir.Node) -> Iterator[ir.Graph]:
    if is_op(node, "If"):
        yield from (node.attributes[name].as_graph() for name in ("then_branch", "else_branch"))


def _after(node: ir.Node, index: int, ranks: _Ranks) -> int:
    """Possible ranks of an output, by those of the inputs."""
    if is_op(node, "If"):
        first, second = (ranks.of(branch.outputs[index]) for branch in _branches(node))
        return first | second
    before = ranks.of(node.inputs[0]) if node.inputs else ANY
    shift = _shift(node)
    if shift is None:
        return ANY
    return (before << shift if shift >= 0 else before >> -shift) & ANY


def _shift(node: ir.Node) -> int | None:
    """By how many dimensions the first output has more than the first input."""
    if is_op(node, "Identity") or is_unary(node):
        return 0
    axes = ints(argument(node, 1)) if is_op(node, "Unsqueeze", "Squeeze") else None
    if axes is None:
        return None
    return len(axes) if is_op(node, "Unsqueeze") else -len(axes)


def _backwards(graph: ir.Graph, ranks: _Ranks) -> None:
    for node in reversed(graph):
        if is_op(node, "If"):
            _backwards_if(node, ranks)
        elif is_op(node, *RECURRENT):
            ranks.narrow(node.inputs[0], 1 << 3)
        elif is_op(node, "Conv") and (size := rank(node.inputs[1])) is not None:
            ranks.narrow(node.inputs[0], 1 << size)
        elif (shift := _shift(node)) is not None:
            after = ranks.of(node.outputs[0])
            ranks.narrow(node.inputs[0], after >> shift if shift >= 0 else after << -shift)


def _backwards_if(node: ir.Node, ranks: _Ranks) -> None:
    """What either branch allows; a branch that allows nothing cannot be taken."""
    scopes = []
    for branch in _branches(node):
        scope = _Ranks(outer=ranks)
        for inner, output in zip(branch.outputs, node.outputs, strict=True):
            scope.narrow(inner, ranks.of(output))
        _backwards(branch, scope)
        if all(scope.own.values()):
            scopes.append(scope.own)
            _note(branch, scope)  # what holds wherever the branch is taken at all
    for key in {k for scope in scopes for k in scope if k in ranks.own}:
        possible = 0
        for found in scopes:
            possible |= found.get(key, ANY)
        ranks.own[key] &= possible


def _note(graph: ir.Graph, ranks: _Ranks) -> None:
    """Write down the ranks of which one is left."""
    for node in graph:
        for output in node.outputs:
            possible = ranks.of(output)
            if possible.bit_count() != 1 or output.is_graph_output():
                continue
            size = possible.bit_length() - 1
            if is_op(node, "If"):
                output.meta[CERTAIN] = size
            if output.shape is None or len(output.shape) != size:
                output.shape = ir.Shape([None] * size)
