"""Products of values and numbers, however they are written."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from passes.base import RewriteRule, is_op
from passes.match import inner, replace_node, scalar

Fused = tuple[str, ir.Value, dict[str, Any]]

DEEPEST = 4


@dataclass(frozen=True)
class Factor:
    """A value in a product, and the node of the product that reads it."""

    value: ir.Value
    user: ir.Node


@dataclass(frozen=True)
class Product:
    """scale * factor * factor * ..."""

    scale: float
    factors: tuple[Factor, ...]

    def but(self, factor: Factor) -> list[ir.Value]:
        """The other factors."""
        return [f.value for f in self.factors if f is not factor]


def product(node: ir.Node | None, depth: int = DEEPEST) -> Product | None:
    """Of a Mul or a Div by a number; inner ones that nobody else reads are taken apart."""
    if node is None or not is_op(node, "Mul", "Div") or depth == 0:
        return None
    scale = 1.0
    factors: list[Factor] = []
    for index, value in enumerate(node.inputs):
        number, divides = scalar(value), index == 1 and is_op(node, "Div")
        if value is None or (divides and not number):
            return None
        if number is not None:
            scale *= 1 / number if divides else number
            continue
        part = product(inner(value, node, "Mul", "Div"), depth - 1)
        scale *= 1 if part is None else part.scale
        factors += [Factor(value, node)] if part is None else part.factors
    return Product(scale, tuple(factors))


class FuseProduct(RewriteRule):
    """A rule for an activation whose last operation is a product."""

    @abstractmethod
    def fused(self, found: Product) -> Fused | None:
        """The operator, its input and its attributes; None when it is not the activation."""

    def match(self, node: ir.Node) -> bool:
        """The product is the activation, and nobody sees its parts."""
        found = product(node)
        return found is not None and self.fused(found) is not None

    def check(self, node: ir.Node) -> str | None:
        """Any match has been looked at completely."""
        found = product(node)
        fused = None if found is None else self.fused(found)
        if fused is None:
            return "it is not the activation any more"
        wide = node.outputs[0].dtype != fused[1].dtype or node.outputs[0].dtype is None
        return "its type is not known" if wide else None

    def rewrite(self, node: ir.Node) -> None:
        """One operator."""
        found = product(node)
        fused = None if found is None else self.fused(found)
        assert fused is not None
        op_type, value, attributes = fused
        replace_node(node, op_type, [value], attributes)


def plus(value: ir.Value | None, user: ir.Node) -> tuple[ir.Value, float, ir.Node] | None:
    """Of `v + number`, read by `user` alone: v, the number and the Add."""
    node = inner(value, user, "Add")
    if node is None:
        return None
    for number, other in (node.inputs[:2], node.inputs[1::-1]):
        found = scalar(number)
        if found is not None and other is not None:
            return other, found, node
    return None
