"""Calibration: run samples through the reference runtime and watch activations go by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_runtime import Session
from infer_runtime.errors import UsageError
from quant.histogram import StreamingHistogram
from quant.ranges import METHODS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import numpy as np
    import onnx_ir as ir

    from quant.config import QuantizeConfig
    from quant.moments import Watch
    from quant.parameters import Range


def calibrate(
    model: ir.Model,
    feeds: Iterable[Mapping[str, np.ndarray[Any, Any]]],
    names: Collection[str],
    config: QuantizeConfig,
    watch: Watch | None = None,
) -> dict[str, Range]:
    """Range of each named value. One pass; memory does not grow with the number of samples.

    `watch` sees the same values, once they are known to be finite.

    Raises:
        UsageError: no samples, a wrong percentile, or an activation that is NaN or infinite.

    """
    if not 50 < config.percentile <= 100:
        raise UsageError(f"--percentile {config.percentile}: expected more than 50, at most 100")
    histograms = {name: StreamingHistogram() for name in names}
    session = Session(model)
    runs = 0

    def observe(name: str, value: np.ndarray[Any, Any]) -> None:
        if name not in histograms:
            return
        try:
            histograms[name].add(value)
        except ValueError as error:
            raise UsageError(
                f"calibration sample batch {runs}: activation {name!r} holds {error}"
            ) from error
        if watch is not None:
            watch.see(name, value)

    for feed in feeds:
        session.run(feed, [], observe=observe)
        runs += 1
        if watch is not None:
            watch.next_batch()
    if not runs:
        raise UsageError("no calibration samples: the data holds less than one batch")
    method = METHODS[_method(config)]
    return {name: method(h, config.percentile) for name, h in histograms.items()}


def _method(config: QuantizeConfig) -> str:
    """Levels of 16 bits are finer than the bins of a histogram: only the ends can be wrong."""
    searched = config.calibration in ("mse", "entropy")
    return "minmax" if searched and config.scheme == "w8a16" else config.calibration
