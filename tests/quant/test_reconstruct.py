"""Learning by gradient and measured biases: less error on samples that were not learned from."""

from __future__ import annotations

import numpy as np
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from quant import quantize_model
from quant.config import QuantizeConfig
from quant.linear import real_weight
from quant.selection import select
from quant.simulate import segments
from quant.static import quantize_static

R = np.random.default_rng(2)


def sqnr(reference, candidate) -> float:
    return 10 * np.log10(np.sum(reference**2) / np.sum((reference - candidate) ** 2))


def images(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Smooth, as images are: neighbours go together."""
    r = np.random.default_rng(seed)
    noise = r.normal(size=(count, 8, 3, 10, 10)).astype(np.float32)
    smooth = sum(noise[..., i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 3
    return [{"x": x} for x in smooth]


def outcome(model, config, run_ort) -> float:
    result = quantize_model(model, images(16, 0), config).model
    feeds = images(8, 1)
    return sqnr(*(np.concatenate([run_ort(m, f)[0] for f in feeds]) for m in (model, result)))


@pytest.mark.parametrize(("mode", "gain"), [("layer", 0.7), ("block", 1.2)])
def test_learned_rounding_beats_nearest(network, run_ort, mode, gain) -> None:
    pytest.importorskip("torch")
    plain = QuantizeConfig(scheme="w3a8", rounding="nearest")
    learned = QuantizeConfig(scheme="w3a8", rounding="nearest", reconstruct=mode, steps=100)
    assert outcome(network, learned, run_ort) > outcome(network, plain, run_ort) + gain


def test_learned_ranges_beat_the_whole_range(network, run_ort) -> None:
    """Min-max keeps one wild sample; learning does not."""
    pytest.importorskip("torch")
    wild = images(16, 0)
    wild[3]["x"][0, 0, 0, 0] = 60
    found = {}
    for learn in (False, True):
        config = QuantizeConfig(calibration="minmax", learn_ranges=learn, steps=150)
        result = quantize_model(network, wild, config).model
        feeds = images(8, 1)
        found[learn] = sqnr(
            *(np.concatenate([run_ort(m, f)[0] for f in feeds]) for m in (network, result))
        )
    assert found[True] > found[False] + 1


def test_measured_biases_take_the_mean_error_away(network, run_ort) -> None:
    """Of whole layers as they run, not only of their weights."""
    feeds = images(16, 0)
    wanted = np.concatenate([run_ort(network, f)[0] for f in feeds])
    errors = {}
    for measured in (False, True):
        config = QuantizeConfig(
            scheme="w3a8", rounding="nearest", bias_correction=False, empirical_bias=measured
        )
        result = quantize_model(network, feeds, config).model
        got = np.concatenate([run_ort(result, f)[0] for f in feeds])
        errors[measured] = np.abs((got - wanted).mean(axis=0)).max()
    assert errors[True] < 0.1 * errors[False]


def test_the_simulation_computes_what_is_written(network, batches) -> None:
    """Segment by segment as learned, against the file; the biases differ by their rounding."""
    from quant.mean_error import rounded_by
    from quant.simulate import Held
    from quant.static import chosen_numbers, prepare

    config = QuantizeConfig(rounding="nearest", bias_correction=False)
    chosen = select(network, ())
    parameters, linears = chosen_numbers(prepare(network, batches, config))
    order = segments(network, chosen, 1)
    held = Held(batches[:2], order, rounded_by(chosen, parameters, linears))
    for segment in order[:-1]:
        held.advance(segment)
    found = held.outputs(order[-1], ["y"])
    written = Session(quantize_static(network, batches, config).model)
    for feed, got in zip(batches, found, strict=False):
        wanted = written.run(feed)["y"]
        np.testing.assert_allclose(got["y"], wanted, atol=0.02 * np.abs(wanted).max())
    assert real_weight(linears["n0"]).shape == (8, 3, 3, 3)


def test_where_a_network_is_cut(network) -> None:
    """One layer each; or a block with its residual connection inside."""
    chosen = select(network, ())
    assert [[n.name for n in s.layers] for s in segments(network, chosen, 1)[:4]] == [
        ["n0"], ["n2"], ["n4"], ["n13"],
    ]  # fmt: skip
    first, *_ = segments(network, chosen, 3)
    assert [n.name for n in first.layers] == ["n0", "n2", "n4"]
    assert first.outputs == ["d"]


def test_a_branch_reads_a_value_around_it(make, run_ort) -> None:
    """What an If takes from outside its branches goes with its segment."""
    text = """t (float[N,6] x, bool c, float[6,8] w, float[8,4] v) => (float[N,4] y)
    { h = MatMul(x, w)  r = Relu(h)
      k = If (c) <then_branch = a () => (float[N,8] p) { p = Add(r, r) }, else_branch = b () => (float[N,8] q) { q = Neg(r) }>
      y = MatMul(k, v) }"""
    model = make(
        text, w=R.normal(size=(6, 8)).astype(np.float32), v=R.normal(size=(8, 4)).astype(np.float32)
    )
    feeds = [{"x": R.normal(size=(8, 6)).astype(np.float32), "c": np.array(i % 2 == 0)} for i in range(4)]  # fmt: skip
    result = quantize_model(model, feeds, QuantizeConfig(empirical_bias=True)).model
    for feed in feeds:
        assert sqnr(run_ort(model, feed)[0], run_ort(result, feed)[0]) > 25


def test_streams_cannot_be_read_twice(network, batches) -> None:
    with pytest.raises(UsageError, match="more than once"):
        quantize_model(network, iter(batches), QuantizeConfig(empirical_bias=True))
