"""Per-channel statistics of values: gathered while samples run, in memory of a fixed size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime import Session
from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    Array = np.ndarray[Any, Any]


class ChannelRanges:
    """Smallest and largest number of each channel of some values; axis 1 of images, else the last.

    Args:
        axes: the axis of the channels of each value, by name.

    """

    def __init__(self, axes: Mapping[str, int]) -> None:
        self.low: dict[str, Array] = {}
        self.high: dict[str, Array] = {}
        self._axes = axes

    def add(self, name: str, value: Array) -> None:
        """Account for a value, if it is one of those; UsageError when it is not finite."""
        if name not in self._axes or not value.size:
            return
        axis = self._axes[name] % value.ndim
        others = tuple(i for i in range(value.ndim) if i != axis)
        low, high = value.min(axis=others), value.max(axis=others)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise UsageError(f"calibration: activation {name!r} holds NaN or infinity")
        self.low[name] = np.minimum(self.low.get(name, low), low)
        self.high[name] = np.maximum(self.high.get(name, high), high)

    def largest(self, name: str) -> Array:
        """max|x| of each channel."""
        return np.asarray(np.maximum(np.abs(self.low[name]), np.abs(self.high[name])))


def channel_ranges(
    model: ir.Model, feeds: Iterable[Mapping[str, Array]], axes: Mapping[str, int]
) -> ChannelRanges:
    """Run all samples; UsageError when there are none."""
    found, session, runs = ChannelRanges(axes), Session(model), 0
    for feed in feeds:
        session.run(feed, [], observe=found.add)
        runs += 1
    if not runs:
        raise UsageError("no calibration samples: the data holds less than one batch")
    return found
