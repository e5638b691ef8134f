"""Weights that may lose single elements, and the axes along which they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.base import Refusal, is_op
from passes.graph import constant
from quant.sites import sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from quant.prune.pattern import Pattern
    from quant.sites import Site

    Array = np.ndarray[Any, Any]
    Masks = Mapping[str, Array]

PRODUCTS = ("Conv", "Gemm", "MatMul")  # layers whose inputs can be watched
MATRIX = 2


@dataclass(frozen=True)
class Weight:
    """A weight in its first place; what other places read is the same."""

    site: Site

    @property
    def name(self) -> str:
        """Of the initialiser."""
        return self.site.weight.name or ""

    @property
    def array(self) -> Array:
        """Its elements, float32."""
        found = constant(self.site.weight)
        assert found is not None
        return found

    @property
    def inner(self) -> int:
        """The axis of the input channels, which are summed over."""
        if is_op(self.site.node, "Conv"):
            return 1
        if is_op(self.site.node, "ConvTranspose"):
            return 0
        assert self.site.inner is not None
        return self.site.inner % self.array.ndim

    @property
    def is_product(self) -> bool:
        """Can it be seen as rows that meet rows of inputs? See `quant.moments`."""
        node = self.site.node
        flat = is_op(node, "Conv") or self.array.ndim == MATRIX
        return is_op(node, *PRODUCTS) and flat and node.attributes.get_int("transA", 0) == 0


def weights_of(
    model: ir.Model, pattern: Pattern | None = None
) -> tuple[list[Weight], list[Refusal]]:
    """All weights that may lose elements, in graph order, and why others may not.

    Args:
        model: constants are initialisers.
        pattern: input channels must be divisible by its group.

    """
    found: dict[str, Weight] = {}
    refusals = []
    for site, reason in sites(model):
        weight = Weight(site)
        reason = reason or _reason(model, weight, pattern)
        other = found.setdefault(weight.name, weight) if reason is None else weight
        if pattern is not None and other is not weight and other.inner != weight.inner:
            del found[weight.name]
            reason = (
                f"its weight {weight.name} is read along another axis by {other.site.node.name}"
            )
        if reason is not None:
            refusals.append(Refusal(site.node.name or "?", site.node.op_type, reason))
    return list(found.values()), refusals


def _reason(model: ir.Model, weight: Weight, pattern: Pattern | None) -> str | None:
    if model.graph.initializers.get(weight.name) is not weight.site.weight:
        return f"its weight {weight.name} is in a branch or a loop"
    others = [n for n, _ in weight.site.weight.uses() if is_op(n, "Gather")]
    if others:
        return f"its weight {weight.name} is a table of {others[0].name}, which sums nothing"
    size = weight.array.shape[weight.inner]
    if pattern is not None and size % pattern.group:
        return f"its {size} input channels are not divisible by {pattern.group}"
    return None


def zeros_share(model: ir.Model, names: set[str]) -> float:
    """The share of zeros among the elements of these initialisers."""
    arrays = [constant(model.graph.initializers[n]) for n in sorted(names)]
    sizes = [(a.size, a.size - np.count_nonzero(a)) for a in arrays if a is not None]
    total, zeros = (sum(column) for column in zip(*sizes, strict=True))
    return float(zeros / total)
