"""Where two graphs first go apart: values of the same name, in the order of the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer_tool.engines.intermediates import engine_values, reference_values
from passes.compare import Difference, difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

SHOWN = 8


@dataclass(frozen=True)
class Divergence:
    """A value that differs, and the candidate's node that computes it."""

    value: str
    node: str
    op: str
    found: Difference


def divergences(
    reference: ir.Model,
    candidate: ir.Model,
    engine: str,
    feeds: Mapping[str, Any],
    tolerance: float,
) -> tuple[list[Divergence], int]:
    """Values beyond the tolerance in the order of the graph, and how many could be compared.

    Only names that both graphs have are compared; graphs without common names have no answer.

    Raises:
        ModelError: an engine cannot run a graph with its inner values as outputs.

    """
    wanted = reference_values(reference, feeds)
    got = engine_values(engine, candidate, feeds, reference_values(candidate, feeds))
    makers = {value.name: node for node in candidate.graph for value in node.outputs}
    common = [
        name
        for name, value in wanted.items()
        if name in got and name in makers and _alike(value, got[name])
    ]
    apart = []
    for name in common:
        found = difference(wanted[name], got[name])
        if not found.max_rel <= tolerance:
            node = makers[name]
            apart.append(Divergence(name, node.name or "?", node.op_type, found))
    return apart, len(common)


def _alike(a: Any, b: Any) -> bool:
    return hasattr(a, "shape") and hasattr(b, "shape") and a.shape == b.shape


def table(apart: list[Divergence]) -> dict[str, Any]:
    """The first ones, for the report."""
    rows = [
        [d.value, d.node, d.op, f"{d.found.max_abs:.3g}", f"{d.found.max_rel:.3g}"]
        for d in apart[:SHOWN]
    ]
    return {"columns": ["value", "node", "op", "max abs", "max rel"], "rows": rows}
