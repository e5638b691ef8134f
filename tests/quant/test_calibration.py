"""Histograms, ranges and parameters, against computations by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.formats import INT8, UINT8
from quant.granularity import PerAxis, PerTensor
from quant.histogram import BINS, StreamingHistogram
from quant.parameters import Range, activation_parameters, quantize_weight, weight_scale
from quant.ranges import METHODS


def _fill(*parts: np.ndarray) -> StreamingHistogram:
    histogram = StreamingHistogram()
    for part in parts:
        histogram.add(part.astype(np.float32))
    return histogram


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50), st.integers(1, 5))
def test_stream_equals_whole(values, pieces) -> None:
    """Cut anywhere, the counts stay the same as soon as the range is the same."""
    array = np.array(values, np.float32)
    parts = np.array_split(array, pieces)
    streamed = _fill(*parts)
    assert streamed.counts.sum() == (array.size if streamed.limit else 0)
    assert (streamed.low, streamed.high) == (array.min(), array.max())
    assert streamed.counts.shape == (BINS,), "memory does not grow"


def test_growth_keeps_the_distribution() -> None:
    small, large = np.linspace(-1, 1, 1001), np.linspace(-1000, 1000, 11)
    histogram = _fill(small, large)
    centres, counts = histogram.occupied()
    assert counts.sum() == small.size + large.size
    assert counts[np.abs(centres) < 1.2].sum() >= small.size


def test_zeros_before_the_first_value_count() -> None:
    histogram = _fill(np.zeros(100), np.array([2.0]))
    centres, counts = histogram.occupied()
    assert counts.sum() == 101
    assert counts[np.abs(centres) < 0.01].sum() == 100


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(bad) -> None:
    with pytest.raises(ValueError, match="NaN"):
        _fill(np.array([1.0, bad]))


def test_minmax_and_percentile() -> None:
    data = np.concatenate([np.linspace(-1, 1, 99_980), np.full(20, 50.0)])
    histogram = _fill(data)
    assert METHODS["minmax"](histogram, 0) == Range(-1, 50)
    cut = METHODS["percentile"](histogram, 99.9)
    assert cut.high == pytest.approx(1, abs=0.05)
    assert cut.low == pytest.approx(-1, abs=0.05)


def test_mse_is_the_best_candidate_by_brute_force() -> None:
    data = np.random.default_rng(0).laplace(size=200_000).astype(np.float32)
    histogram = _fill(data)
    found = METHODS["mse"](histogram, 0)

    def error(low: float, high: float) -> float:
        p = activation_parameters(Range(low, high), UINT8)
        q = UINT8.quantize(data, np.asarray(p.scale), np.asarray(p.zero_point))
        real = UINT8.dequantize(q, np.asarray(p.scale), np.asarray(p.zero_point))
        return float(np.mean((real - data) ** 2))

    full = METHODS["minmax"](histogram, 0)
    grid = [
        error(full.low * a, full.high * b)
        for a in np.linspace(0.3, 1, 8)
        for b in np.linspace(0.3, 1, 8)
    ]
    assert error(found.low, found.high) <= min(grid) * 1.01
    assert error(found.low, found.high) < error(full.low, full.high)


def test_entropy_clips_an_outlier_and_keeps_a_spike() -> None:
    bell = np.random.default_rng(0).normal(size=200_000)
    clipped = METHODS["entropy"](_fill(bell, np.array([60.0])), 0)
    assert clipped.high < 40
    relu6 = np.clip(bell * 6, 0, 6)
    kept = METHODS["entropy"](_fill(relu6), 0)
    assert (kept.low, kept.high) == (0, pytest.approx(6, rel=0.02))


@pytest.mark.parametrize("method", list(METHODS))
def test_constant_data(method) -> None:
    assert METHODS[method](_fill(np.zeros(10)), 99.9) == Range(0, 0)
    found = METHODS[method](_fill(np.full(10, 3.0)), 99.9)
    assert found.low == 0
    assert found.high == pytest.approx(3, rel=1e-3)


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4), st.sampled_from([UINT8, INT8]))
def test_zero_is_exact_and_the_range_fits(low, width, form) -> None:
    span = Range(low, low + width)
    p = activation_parameters(span, form)
    zero = form.quantize(np.zeros(1), np.asarray(p.scale), np.asarray(p.zero_point))
    assert form.dequantize(zero, np.asarray(p.scale), np.asarray(p.zero_point))[0] == 0
    assert form.low <= p.zero_point <= form.high
    ends = np.array([form.low, form.high], form.dtype)
    real = form.dequantize(ends, np.asarray(p.scale), np.asarray(p.zero_point))
    assert real[0] <= span.low + p.scale
    assert real[1] >= span.high - p.scale


@given(st.integers(0, 2**32 - 1), st.sampled_from([PerTensor(), PerAxis(0), PerAxis(1)]))
def test_weights_are_within_half_a_step(seed, granularity) -> None:
    weight = np.random.default_rng(seed).normal(size=(3, 4, 2)).astype(np.float32)
    scale = weight_scale(weight, granularity, None, 1.0)
    levels = quantize_weight(weight, scale, granularity)
    assert levels.min() >= -127
    spread = granularity.spread(scale, weight)
    assert np.all(np.abs(levels * spread.astype(np.float64) - weight) <= spread * 0.5001)


def test_ties_go_to_even() -> None:
    one, zero = np.float32(1), np.int64(0)
    halves = np.array([0.5, 1.5, 2.5, -0.5, -1.5])
    np.testing.assert_array_equal(INT8.quantize(halves, one, zero), [0, 2, 2, 0, -2])
    np.testing.assert_array_equal(INT8.quantize(np.array([1e9, -1e9]), one, zero), [127, -128])


def test_moving_average_by_hand() -> None:
    """One wild batch moves the average by a tenth; min-max keeps it for ever."""
    histogram = _fill(np.array([-1.0, 2.0]), np.array([-11.0, 2.0]), np.array([-1.0, 2.0]))
    found = METHODS["moving-average"](histogram, 0)
    assert found.low == pytest.approx(0.9 * (0.9 * -1 + 0.1 * -11) + 0.1 * -1)
    assert found.high == pytest.approx(2)
    assert METHODS["minmax"](histogram, 0) == Range(-11, 2)
