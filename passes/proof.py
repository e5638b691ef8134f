"""What a changed model must still be: valid, of the same interface, with the same outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from infer_runtime import Session
from infer_runtime.errors import MismatchError, ModelError
from passes.compare import Difference, compare_outputs, worst
from passes.verify import verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

Feeds: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
Interface: TypeAlias = tuple[tuple[str | None, Any, tuple[str, ...] | None], ...]


def interface(model: ir.Model) -> Interface:
    """Name, type and dimensions of each input, then of each output."""
    return tuple(
        (v.name, v.type, None if v.shape is None else tuple(map(str, v.shape)))
        for v in (*model.graph.inputs, *model.graph.outputs)
    )


@dataclass(frozen=True)
class Proof:
    """The source's interface, and its outputs on some feeds."""

    interface: Interface
    feeds: Sequence[Feeds]
    wanted: Sequence[Mapping[str, Any]]
    tolerance: float

    @classmethod
    def of(cls, model: ir.Model, feeds: Sequence[Feeds], tolerance: float) -> Proof:
        """Run the source."""
        session = Session(model)
        return cls(interface(model), feeds, [session.run(f) for f in feeds], tolerance)

    def check_structure(self, model: ir.Model) -> None:
        """Raise ModelError when the graph is not valid or its interface another one."""
        verify(model)
        found = interface(model)
        if len(found) != len(self.interface):
            raise ModelError("the number of inputs and outputs changed")
        for before, after in zip(self.interface, found, strict=True):
            # A shape that nobody had declared may become known.
            if before[:2] != after[:2] or (before[2] is not None and before[2] != after[2]):
                raise ModelError(f"{_show(before)} became {_show(after)}")

    def check_outputs(self, model: ir.Model) -> Difference:
        """The largest difference from the source; MismatchError beyond the tolerance, or NaN."""
        session = Session(model)
        pairs = zip(self.feeds, self.wanted, strict=True)
        every = [worst(compare_outputs(wanted, session.run(feed))) for feed, wanted in pairs]
        found = max(every, key=lambda d: d.max_rel)
        if not found.max_rel <= self.tolerance:
            raise MismatchError(
                f"it changed the outputs: max rel {found.max_rel:.3g}, limit {self.tolerance:g}"
            )
        return found


def _show(line: tuple[str | None, Any, tuple[str, ...] | None]) -> str:
    name, kind, dims = line
    return f"{name!r} ({kind}, {'unknown' if dims is None else 'x'.join(dims) or 'scalar'})"
