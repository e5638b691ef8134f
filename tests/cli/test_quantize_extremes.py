"""Quantising what is at the edge of sense: a result that holds, or one line and no file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

R = np.random.default_rng(12)
WEIGHTS = {"w": R.normal(size=(4, 16)).astype(np.float32), "v": R.normal(size=(16, 8)).astype(np.float32)}  # fmt: skip
NET = "h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v)"
X = R.normal(size=(40, 4)).astype(np.float32)
CALM = ("--runs", "0", "--calib-samples", "20")


def _write(folder: Path, body: str = NET, **weights: np.ndarray) -> Path:
    """A model of x [N, 4] and y [N, 8] from text."""
    arrays = {k: v for k, v in {**WEIGHTS, **weights}.items() if f"{k})" in body or f"{k}," in body}
    names = "".join(f", float{list(a.shape)} {k}" for k, a in arrays.items())
    text = f'<ir_version: 10, opset_import: ["": 20]> t (float[N,4] x{names}) => (float[N,M] y) {{ {body} }}'
    model = ir.from_onnx_text(text)
    for name, array in arrays.items():
        value = next(v for v in model.graph.inputs if v.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        model.graph.register_initializer(value)
    ir.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def _data(folder: Path, x: np.ndarray, **more: np.ndarray) -> Path:
    np.savez(folder / "d.npz", x=x, **more)
    return folder / "d.npz"


def _refused(outcome, folder: Path, status: int, *words: str) -> None:
    assert outcome.status == status, outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, outcome.err
    for word in words:
        assert word in lines[0], lines[0]
    assert "Traceback" not in outcome.err
    assert not (folder / "q.onnx").exists()


def _outputs(path: Path, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options).run(None, {"x": x})[0]


def _close(folder: Path, x: np.ndarray, share: float) -> None:
    wanted, got = _outputs(folder / "m.onnx", x), _outputs(folder / "q.onnx", x)
    assert np.isfinite(got).all()
    assert np.abs(got - wanted).max() <= share * max(np.abs(wanted).max(), 1e-6)


@pytest.mark.parametrize("options", [(), ("--calibration", "moving-average"), ("--equalize",)])
def test_one_sample_calibrates(cli, tmp_path, options) -> None:
    model, one = _write(tmp_path), _data(tmp_path, X[:1])
    arguments = ("--calib", one, "--eval", one, "--runs", "0", *options)
    assert cli("quantize", model, "-o", tmp_path / "q.onnx", *arguments).status == 0
    _close(tmp_path, X[:1], 0.05)


def test_one_sample_is_not_split(cli, tmp_path) -> None:
    arguments = (_write(tmp_path), "-o", tmp_path / "q.onnx", "--data", _data(tmp_path, X[:1]))
    _refused(cli("quantize", *arguments, *CALM), tmp_path, 2, "1 samples", "--calib-samples")


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-20, 1e20])
def test_constant_inputs(cli, tmp_path, value) -> None:
    """A range without width is the value itself, however large or small it is."""
    x = np.full((40, 4), value, np.float32)
    outcome = cli(
        "quantize", _write(tmp_path), "-o", tmp_path / "q.onnx", "--data", _data(tmp_path, x), *CALM
    )
    assert outcome.status == 0, outcome.err
    _close(tmp_path, x, 0.05)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("h = MatMul(x, w)  l = Log(h)  r = Relu(l)  y = MatMul(r, v)", ["'r'", "NaN"]),
        ("e = Mul(x, big)  h = Exp(e)  i = MatMul(h, w)  y = MatMul(i, v)", ["'h'", "NaN or inf"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int4-weight"])
def test_activations_that_are_not_numbers(cli, tmp_path, body, words, scheme) -> None:
    model = _write(tmp_path, body, big=np.full(4, 1e3, np.float32))
    arguments = ("--data", _data(tmp_path, X), "--scheme", scheme, *CALM)
    outcome = cli("quantize", model, "-o", tmp_path / "q.onnx", *arguments)
    _refused(outcome, tmp_path, 2, *words)


def test_labels_out_of_range(cli, tmp_path) -> None:
    data = _data(tmp_path, X, labels=np.full(40, 9))
    arguments = (_write(tmp_path), "-o", tmp_path / "q.onnx", "--data", data, *CALM)
    _refused(cli("quantize", *arguments), tmp_path, 2, "label", "9")


@pytest.mark.parametrize("options", [(), ("--equalize",), ("--smooth", "0.5"), ("--per-tensor",)])
def test_channels_of_zeros(cli, tmp_path, options) -> None:
    w = WEIGHTS["w"].copy()
    w[:, 3] = w[:, 9] = 0
    model, data = _write(tmp_path, w=w), _data(tmp_path, X)
    arguments = ("--calib", data, "--eval", data, "--runs", "0", *options)
    outcome = cli("quantize", model, "-o", tmp_path / "q.onnx", *arguments)
    assert outcome.status == 0, outcome.err
    _close(tmp_path, X, 0.05)


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int8-weight", "int4-weight"])
def test_weights_that_are_not_numbers_stay(cli, tmp_path, scheme) -> None:
    """Where their column does not count they harm nobody; rounded they would."""
    w = WEIGHTS["w"].copy()
    w[0, 0] = np.inf
    model, data = _write(tmp_path, w=w), _data(tmp_path, X)
    arguments = ("--data", data, "--scheme", scheme, "--explain", *CALM)
    outcome = cli("quantize", model, "-o", tmp_path / "q.onnx", *arguments)
    if outcome.status == 0:
        assert "its weight w holds NaN or infinity" in outcome.out + outcome.err
    else:
        _refused(outcome, tmp_path, 2, "NaN or infinity")


def test_weights_of_zeros_only(cli, tmp_path) -> None:
    model = _write(tmp_path, w=np.zeros((4, 16), np.float32))
    arguments = (model, "-o", tmp_path / "q.onnx", "--data", _data(tmp_path, X), *CALM)
    outcome = cli("quantize", *arguments)
    if outcome.status == 0:
        _close(tmp_path, X, 0.05)
    else:
        _refused(outcome, tmp_path, 2)


def test_an_outlier_channel_is_said_and_can_be_moved(cli, tmp_path) -> None:
    """One channel of a million and weights of a millionth behind it: noise without --equalize."""
    w, v = WEIGHTS["w"].copy(), WEIGHTS["v"].copy()
    w[:, 3] *= np.float32(1e6)
    v[3] *= np.float32(1e-6)
    model, data = _write(tmp_path, w=w, v=v), _data(tmp_path, X)
    arguments = ("quantize", model, "--data", data, *CALM, "--json")
    plain = json.loads(cli(*arguments, "-o", tmp_path / "p.onnx").out)
    assert any("far from the source" in w for w in plain["warnings"])
    equal = cli(*arguments, "-o", tmp_path / "q.onnx", "--equalize", "--rounding", "nearest")
    found = json.loads(equal.out)["accuracy"]["sqnr_db"]
    assert found > plain["accuracy"]["sqnr_db"] + 10
    assert cli(*arguments, "-o", tmp_path / "g.onnx", "--max-drop", "0.01%", "--metric", "cosine").status == 1  # fmt: skip
    assert not (tmp_path / "g.onnx").exists()


@pytest.mark.parametrize("scheme", ["int8", "w4a8", "w8a16", "int8-dynamic", "int4-weight"])
def test_nothing_that_could_be_quantised(cli, tmp_path, scheme) -> None:
    model = _write(tmp_path, "h = Exp(x)  s = Sin(h)  y = Softmax(s)")
    arguments = ("--data", _data(tmp_path, X), "--scheme", scheme, *CALM)
    outcome = cli("quantize", model, "-o", tmp_path / "q.onnx", *arguments)
    _refused(outcome, tmp_path, 2, "no ")


@pytest.mark.parametrize(
    ("gates", "name"),
    [
        (("--max-drop", "50%", "--max-size", "10B"), "max-size"),
        (("--min-coverage", "100%", "--exclude", "{first}"), "min-coverage"),
    ],
)
def test_limits_that_contradict_each_other(cli, tmp_path, gates, name) -> None:
    """The one that was missed is named; nothing is written, whatever the others say."""
    model, data = _write(tmp_path), _data(tmp_path, X)
    proto = onnx.load(model)
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    onnx.save(proto, model)
    given = [g.format(first="n0") for g in gates]
    outcome = cli("quantize", model, "-o", tmp_path / "q.onnx", "--data", data, *CALM, *given)
    _refused(outcome, tmp_path, 1, name)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (("--equalize",), "--equalize"), (("--reconstruct", "block"), "--reconstruct"),
        (("--learn-ranges",), "--learn-ranges"), (("--empirical-bias",), "--empirical-bias"),
        (("--smooth", "0.5"), "--smooth"), (("--rounding", "nearest"), "--rounding"),
    ],
)  # fmt: skip
def test_options_of_other_schemes(cli, tmp_path, options, flag) -> None:
    arguments = ("--data", _data(tmp_path, X), "--scheme", "int8-weight", *options, *CALM)
    outcome = cli("quantize", _write(tmp_path), "-o", tmp_path / "q.onnx", *arguments)
    _refused(outcome, tmp_path, 2, flag, "int8-weight")


@pytest.mark.parametrize(
    ("options", "flag"),
    [(("--algorithm", "awq"), "--algorithm"), (("--block-size", "32"), "--block-size")],
)
def test_options_of_weights_alone(cli, tmp_path, options, flag) -> None:
    arguments = ("--data", _data(tmp_path, X), *options, *CALM)
    outcome = cli("quantize", _write(tmp_path), "-o", tmp_path / "q.onnx", *arguments)
    _refused(outcome, tmp_path, 2, flag, "not for int8")


@pytest.mark.parametrize(
    "option",
    ["--rounding sequential", "--reconstruct layer", "--learn-ranges", "--empirical-bias", "--reduce-range"],
)  # fmt: skip
def test_options_that_a_search_has_no_use_for(cli, tmp_path, option) -> None:
    arguments = ("--data", _data(tmp_path, X), "--scheme", "auto", "--max-drop", "1%", *CALM)
    outcome = cli("quantize", _write(tmp_path), "-o", tmp_path / "q.onnx", *arguments, *option.split())  # fmt: skip
    _refused(outcome, tmp_path, 2, option.split(" layer")[0], "not for auto")


@pytest.mark.parametrize("limit", ["--max-size=0", "--max-size=-5MB", "--min-sqnr=inf", "--min-sqnr=nan"])  # fmt: skip
def test_limits_that_nothing_can_keep(cli, tmp_path, limit) -> None:
    """Said before any work."""
    arguments = ("--data", _data(tmp_path, X), limit, *CALM)
    outcome = cli("quantize", _write(tmp_path), "-o", tmp_path / "q.onnx", *arguments)
    _refused(outcome, tmp_path, 2, limit.split("=")[0])
