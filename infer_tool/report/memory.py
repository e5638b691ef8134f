"""The memory plan of a model as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from passes.memory import lifetimes
from passes.memory_plan import best_plan, greedy_by_size, largest_live_set
from passes.sizes import value_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from passes.memory_plan import Buffer, MemoryPlan

Table = dict[str, Any]
SHOWN = 5  # names in one line


def memory_tables(
    model: ir.Model, sizes: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Table], list[str]]:
    """Totals, the buffers that live at the peak, and a warning about values of unknown size."""
    found = lifetimes(model.graph, value_bytes(model, sizes))
    buffers, nodes = found.buffers, [n.name or "?" for n in model.graph]
    bound, peak = largest_live_set(buffers)
    greedy, best = greedy_by_size(buffers), best_plan(buffers)
    rows = [
        ["buffers", len(buffers)],
        ["bytes of all buffers", sum(b.size for b in buffers)],
        ["largest live set (no arena is smaller)", bound],
        ["arena, greedy by size", greedy.arena],
        ["arena, best plan found", best.arena],
        ["proven to be the smallest", "yes" if best.optimal else "no"],
        ["peak at node", nodes[peak] if nodes else "-"],
    ]
    tables = {
        "Memory": {"columns": ["at the sizes of the inputs", "value"], "rows": rows},
        "Live at the peak": _live(buffers, best, peak, nodes),
    }
    return tables, _warnings(found.unknown)


def _live(buffers: Sequence[Buffer], plan: MemoryPlan, peak: int, nodes: list[str]) -> Table:
    rows: list[list[Any]] = [
        [b.values[0], b.size, offset, nodes[b.first], nodes[b.last], _names(b.values[1:])]
        for b, offset in zip(buffers, plan.offsets, strict=True)
        if b.first <= peak <= b.last and nodes
    ]
    rows.sort(key=lambda row: -row[1])
    columns = ["buffer", "bytes", "offset", "from node", "to node", "also holds"]
    return {"columns": columns, "rows": rows}


def _names(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def _warnings(unknown: Sequence[str]) -> list[str]:
    if not unknown:
        return []
    return [f"{len(unknown)} values have no known size and are in no plan: {_names(unknown)}"]
