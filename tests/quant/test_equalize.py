"""Equalisation: the same bits in float, better levels in integers; what must stay does."""

from __future__ import annotations

import numpy as np
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from quant import quantize_model
from quant.config import QuantizeConfig
from quant.equalize import equalize, smooth_static
from quant.groups import groups

R = np.random.default_rng(7)
RESIDUAL = """t (float[N,4,6,6] x, float[8,4,1,1] a, float[8] ab, float[8,1,3,3] d, float[8] db, float[6,8,1,1] p,
    float[8,6,1,1] e, float[6,8,1,1] q, float[3,6,1,1] o, float[3] ob) => (float[N,3,6,6] y)
{ h = Conv(x, a, ab)  hr = Relu(h)  k = Conv<group=8, pads=[1,1,1,1]>(hr, d, db)  kr = LeakyRelu<alpha=0.1>(k)
  s = Conv(kr, p)  u = Conv(s, e)  ur = Relu(u)  v = Conv(ur, q)  z = Add(s, v)  y = Conv(z, o, ob) }"""


def uneven(*shape: int) -> np.ndarray:
    """Channels of sizes from 1/8 to 8, as in networks that are hard to quantise."""
    sizes = np.geomspace(1 / 8, 8, shape[0])
    w = R.normal(size=shape) * R.permutation(sizes).reshape(-1, *(1,) * (len(shape) - 1))
    return (w / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


@pytest.fixture
def residual(make):
    return make(
        RESIDUAL, a=uneven(8, 4, 1, 1), ab=uneven(8), d=uneven(8, 1, 3, 3), db=uneven(8),
        p=uneven(6, 8, 1, 1), e=uneven(8, 6, 1, 1), q=uneven(6, 8, 1, 1), o=uneven(3, 6, 1, 1), ob=uneven(3),
    )  # fmt: skip


def samples(count: int = 4) -> list[dict[str, np.ndarray]]:
    return [{"x": R.normal(size=(4, 4, 6, 6)).astype(np.float32)} for _ in range(count)]


def sqnr(reference, candidate) -> float:
    return 10 * np.log10(np.sum(reference**2) / np.sum((reference - candidate) ** 2))


def sizes(model, name: str, axis: tuple[int, ...]) -> np.ndarray:
    return np.abs(model.graph.initializers[name].const_value.numpy()).max(axis=axis)


def test_outputs_of_the_float_model_stay(residual, run_ort) -> None:
    feeds = samples()
    wanted = run_ort(residual, feeds[0])[0]
    got = run_ort(equalize(residual, feeds).model, feeds[0])[0]
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_scaling_is_exact_to_the_bit(residual, run_ort) -> None:
    """Without the means, that is: powers of two do not round."""
    smoothed = smooth_static(residual, samples(), 0.8).model
    changed = [n for n, v in residual.graph.initializers.items()
               if not np.array_equal(v.const_value.numpy(), smoothed.graph.initializers[n].const_value.numpy())]  # fmt: skip
    assert {"a", "d", "p", "e", "q", "o"} <= set(changed)
    for feed in samples():
        np.testing.assert_array_equal(
            Session(smoothed).run(feed)["y"], Session(residual).run(feed)["y"]
        )


def test_ranges_of_channels_meet(residual) -> None:
    """Between a (outputs) and d (inputs) sizes differed up to 64 times on each side."""
    model = equalize(residual, samples()).model
    ratio = sizes(model, "a", (1, 2, 3)) / sizes(model, "d", (1, 2, 3))
    assert ratio.max() <= 2.01
    assert ratio.min() >= 0.49


def test_integers_gain(make, run_ort) -> None:
    """Per tensor, 6 bits of 8 are lost to uneven channels; equalised they are not."""
    text = """t (float[N,8] x, float[8,16] w, float[16] b, float[16,4] v) => (float[N,4] y)
    { h = Gemm(x, w, b)  r = Relu(h)  y = MatMul(r, v) }"""
    scale = R.permutation(np.geomspace(1 / 64, 64, 16)).astype(np.float32)
    w, v = R.normal(size=(8, 16)), R.normal(size=(16, 4))
    model = make(text, w=(w * scale).astype(np.float32), v=(v / scale[:, None]).astype(np.float32),
                 b=(R.normal(size=16) * scale).astype(np.float32))  # fmt: skip
    feeds = [{"x": R.normal(size=(32, 8)).astype(np.float32)} for _ in range(4)]
    wanted = run_ort(model, feeds[0])[0]
    found = {}
    for name, options in {
        "plain": {}, "equalize": {"equalize": True}, "smooth": {"smooth": 0.5},
        "both": {"equalize": True, "smooth": 0.5},
    }.items():  # fmt: skip
        result = quantize_model(model, feeds, QuantizeConfig(rounding="nearest", **options)).model
        found[name] = sqnr(wanted, run_ort(result, feeds[0])[0])
    assert min(found["equalize"], found["smooth"], found["both"]) > found["plain"] + 10


def test_means_move_into_biases(make, run_ort) -> None:
    """Channels that sit at 50, 100, ... are centred before they are rounded: by hand."""
    text = """t (float[N,2,4,4] x, float[3,2,1,1] w, float[3] b, float[2,3,1,1] v) => (float[N,2,4,4] y)
    { h = Conv(x, w, b)  y = Conv(h, v) }"""
    w, v = R.normal(size=(3, 2, 1, 1)).astype(np.float32), R.normal(size=(2, 3, 1, 1))
    bias = np.array([50, 100, -150], np.float32)
    v -= (v[:, :, 0, 0] @ bias / (bias @ bias))[:, None, None, None] * bias[:, None, None]
    model = make(text, w=w, b=bias, v=v.astype(np.float32))
    feeds = [{"x": R.normal(size=(8, 2, 4, 4)).astype(np.float32)} for _ in range(4)]
    done = equalize(model, feeds).model
    hidden = [Session(m).run(feeds[0], ["h"])["h"] for m in (model, done)]
    assert np.abs(hidden[0]).max() > 100
    assert np.abs(hidden[1]).max() < 20
    wanted = run_ort(model, feeds[0])[0]
    np.testing.assert_allclose(run_ort(done, feeds[0])[0], wanted, atol=1e-4 * np.abs(wanted).max())
    found = [
        sqnr(wanted, run_ort(r, feeds[0])[0])
        for r in (quantize_model(model, feeds, QuantizeConfig(equalize=e)).model for e in (False, True))
    ]  # fmt: skip
    assert found[1] > found[0] + 10


def test_padding_keeps_the_means_where_they_are(make) -> None:
    """Beside the image a padded layer sees 0, not the mean."""
    text = """t (float[N,2,4,4] x, float[2,2,1,1] w, float[2] b, float[2,2,3,3] v) => (float[N,2,4,4] y)
    { h = Conv(x, w, b)  y = Conv<pads=[1,1,1,1]>(h, v) }"""
    ones = np.ones((2, 2, 1, 1), np.float32)
    model = make(text, w=ones, b=np.float32([50, 60]), v=np.ones((2, 2, 3, 3), np.float32))
    feeds = [{"x": R.normal(size=(1, 2, 4, 4)).astype(np.float32)}]
    done = equalize(model, feeds).model
    assert np.abs(Session(done).run(feeds[0], ["h"])["h"]).max() > 20


BODY = "{{ h = Conv(x, w)  {}  y = Conv({}, v) }}"


@pytest.mark.parametrize(
    ("body", "outputs", "reason"),
    [
        ("{ h = Conv(x, w)  y = Conv(h, v) }", ", float[N,4,6,6] h", "h is a graph output"),
        ("{ h = Conv(x, w)  s = Sigmoid(h)  y = Conv(h, v)  z = Conv(s, v2) }", ", float[] z", "h is read by Sigmoid"),
        ("{ h = Conv(x, w)  g = Conv(h, w)  y = Conv(g, v) }", "", "its weight w is shared"),
        ("{ h = Conv(x, w)  k = Add(x, h)  y = Conv(k, v)  z = Conv(h, v2) }", ", float[] z", "h is read by Add"),
        ("{ h = Conv(x, w)  c = Clip(h, lo, hi)  y = Conv(c, v)  z = Conv(h, v2) }", ", float[] z", "h is read by Clip"),
    ],
)  # fmt: skip
def test_what_is_left_alone(make, run_ort, body, outputs, reason) -> None:
    text = f"""t (float[N,4,6,6] x, float[4,4,1,1] w, float[4,4,1,1] v, float[4,4,1,1] v2, float lo, float hi)
    => (float[N,4,6,6] y{outputs}) {body}"""
    model = make(
        text, w=uneven(4, 4, 1, 1), v=uneven(4, 4, 1, 1), v2=uneven(4, 4, 1, 1),
        lo=np.float32(0), hi=np.float32(6),
    )  # fmt: skip
    feeds = samples()
    done = equalize(model, feeds)
    assert any(reason in r.reason for r in done.refusals), done.refusals
    for want, got in zip(run_ort(model, feeds[0]), run_ort(done.model, feeds[0]), strict=True):
        np.testing.assert_array_equal(want, got)


def test_excluded_layers_and_zero_channels(residual, run_ort) -> None:
    weight = residual.graph.initializers["a"].const_value.numpy().copy()
    weight[2] = 0
    import onnx_ir as ir

    residual.graph.initializers["a"].const_value = ir.tensor(weight, name="a")
    feeds = samples()
    done = equalize(residual, feeds, ("n2",)).model
    for name in ("d", "db"):
        before, after = residual.graph.initializers[name], done.graph.initializers[name]
        np.testing.assert_array_equal(before.const_value.numpy(), after.const_value.numpy())
    wanted = run_ort(residual, feeds[0])[0]
    assert np.abs(run_ort(done, feeds[0])[0] - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_product_behind_a_normalisation(make, run_ort) -> None:
    """Static SmoothQuant as in transformers: one channel of 60 no longer rules the other 63."""
    text = """t (float[N,64] x, float[64] g, float[64] b, float[64,32] w) => (float[N,32] y)
    { h = LayerNormalization(x, g, b)  y = MatMul(h, w) }"""
    gain = np.where(np.arange(64) == 9, 60, 1).astype(np.float32)
    weight = R.normal(size=(64, 32)).astype(np.float32)
    model = make(text, g=gain, b=np.zeros(64, np.float32), w=weight)
    feeds = [{"x": R.normal(size=(32, 64)).astype(np.float32)} for _ in range(4)]
    wanted, found = run_ort(model, feeds[0])[0], []
    for strength in (None, 0.5):
        result = quantize_model(model, feeds, QuantizeConfig(smooth=strength)).model
        found.append(sqnr(wanted, run_ort(result, feeds[0])[0]))
    assert found[1] > found[0] + 5


def test_samples_are_needed_and_must_be_readable_again(residual) -> None:
    with pytest.raises(UsageError, match="no calibration samples"):
        equalize(residual, [])
    with pytest.raises(UsageError, match="more than once"):
        quantize_model(residual, iter(samples()), QuantizeConfig(equalize=True))


def test_the_residual_stream_is_one_group(residual) -> None:
    found, refusals = groups(residual, ())
    assert not refusals
    stream = next(g for g in found if len(g.writers) == 2)
    assert [n.name for n in stream.writers] == ["n4", "n7"]
    assert [n.name for n in stream.readers] == ["n5", "n9"]
