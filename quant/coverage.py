"""What share of a model is really quantised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from passes.base import Refusal, all_nodes
from passes.facts import macs_by_node

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import onnx_ir as ir


@dataclass(frozen=True)
class Coverage:
    """Counted on the source model; fractions are of its weight bytes and of its MACs."""

    nodes: int
    quantized_nodes: int
    weights_bytes_fraction: float
    macs_fraction: float
    fallbacks: tuple[Refusal, ...]


def measure_coverage(
    source: ir.Model,
    quantized: Collection[str],
    weights: Collection[str],
    fallbacks: tuple[Refusal, ...],
    sizes: Mapping[str, Sequence[int]] | None = None,
) -> Coverage:
    """Coverage from the names of the quantised nodes and of the quantised initialisers.

    `sizes` are input shapes that MACs are counted at. A model without MACs is covered when all its
    nodes are.
    """
    macs = macs_by_node(source, sizes)
    total = sum(macs.values())
    nodes = list(all_nodes(source))
    stored = {
        name: value.const_value.nbytes
        for name, value in source.graph.initializers.items()
        if value.const_value is not None
    }
    share = len(quantized) / len(nodes) if nodes else 0.0
    return Coverage(
        nodes=len(nodes),
        quantized_nodes=len(quantized),
        weights_bytes_fraction=sum(stored[w] for w in weights) / max(sum(stored.values()), 1),
        macs_fraction=sum(macs.get(n, 0) for n in quantized) / total if total else share,
        fallbacks=fallbacks,
    )
