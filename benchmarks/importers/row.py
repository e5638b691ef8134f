"""One line of the importers' table, and how it is measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import InferError
from infer_tool.engines import open_engine
from infer_tool.importers import ImportOptions, import_source
from infer_tool.steps import proof_feeds
from passes.base import all_nodes
from passes.compare import compare_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Row:
    """An imported model; `error` is relative to the largest value of each output."""

    model: str
    route: str
    nodes: int = 0
    seconds: float = 0.0
    error: float = float("nan")
    limit: float = 1e-5
    note: str = ""

    @property
    def passed(self) -> bool:
        """Within its limit, or a row of which only the note counts."""
        return self.limit == 0 or self.error <= self.limit


def measure(
    model: str,
    source: str,
    *,
    shapes: Sequence[str] = (),
    feeds: Sequence[Mapping[str, Any]] = (),
    limit: float = 1e-5,
    engine: str = "reference",
    **options: Any,
) -> Row:
    """Import and compare with the source framework, on `feeds` or on seeded ones.

    Those are of two seeds, and of two batch sizes where `shapes` does not say the sizes. The
    imported graph runs on `engine`.
    """
    start = time.perf_counter()
    try:
        imported = import_source(source, ImportOptions(**options))
    except InferError as error:
        return Row(model, "FAILED", note=str(error)[:300])
    seconds = time.perf_counter() - start
    session = open_engine(engine, imported.model, optimize=False)
    batches = (1,) if shapes else (1, 3)
    seeded = [proof_feeds(session.inputs, seed, shapes, batches) for seed in (0, 1)]
    worst = 0.0
    for feed in feeds or chain.from_iterable(seeded):
        found = compare_outputs(imported.reference(feed), session.run(feed))
        worst = max(worst, *(d.max_rel for d in found.values()))
    nodes = sum(1 for _ in all_nodes(imported.model))
    return Row(model, imported.route or imported.kind, nodes, seconds, worst, limit)
