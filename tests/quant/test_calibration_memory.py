"""Calibration holds no samples: its peak is the same for twice as many."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from quant import quantize_model, simulate
from quant.config import QuantizeConfig

R = np.random.default_rng(0)
TEXT = """t (float[N,8,32,32] x, float[8,8,1,1] w, float[8,8,1,1] v, float[8,64] m) => (float[N,64] y)
{ a = Conv(x, w)  b = Relu(a)  c = Conv(b, v)  g = GlobalAveragePool(c)
  f = Flatten(g)  y = MatMul(f, m) }"""


class Stream:
    """So many batches of a quarter of a megabyte, made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self):
        for seed in range(self.count):
            r = np.random.default_rng(seed)
            yield {"x": r.normal(size=(8, 8, 32, 32)).astype(np.float32)}


def peak(model, config: QuantizeConfig, batches: int) -> int:
    tracemalloc.start()
    quantize_model(model, Stream(batches), config)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.parametrize(
    "options",
    [
        {}, {"equalize": True, "smooth": 0.5}, {"empirical_bias": True}, {"scheme": "int4-weight"},
        {"scheme": "w4a8"},
    ],
    ids=str,
)  # fmt: skip
def test_peak_does_not_grow(make, options, monkeypatch) -> None:
    """What is held from layer to layer has its limit; here that is met with few batches."""
    monkeypatch.setattr(simulate, "HELD_BYTES", 1)
    shapes = {"w": (8, 8, 1, 1), "v": (8, 8, 1, 1), "m": (8, 64)}
    model = make(TEXT, **{n: R.normal(size=s).astype(np.float32) for n, s in shapes.items()})
    config = QuantizeConfig(**options)
    quantize_model(model, Stream(1), config)  # imports and caches
    few, many = peak(model, config, 17), peak(model, config, 36)
    assert many <= 1.1 * few
