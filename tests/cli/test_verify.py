"""`verify`: every figure against a computation by hand, every way to fail."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime.errors import MismatchError
from infer_runtime.session import tensor_info
from infer_tool import verify
from infer_tool.emitters.onnx import save_onnx
from infer_tool.engines import available_engines
from infer_tool.output_stats import rounded
from passes.feeds import random_feeds


def _save(path: Path, body: str, header: str = "float[N,3] x") -> Path:
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    t ({header}) => (float[N,3] y, float[N,3] z) {{ {body} }}"""
    save_onnx(ir.from_onnx_text(text), path)
    return path


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    """The second adds 0.01 to y, at the node 'late'."""
    same = "h = Relu(x) z = Neg(h)"
    first = _save(tmp_path / "a.onnx", f"{same} y = Identity(h)")
    second = _save(
        tmp_path / "b.onnx",
        f"{same} k = Constant<value = float {{0.01}}>() y = Add(h, k)",
    )
    return first, second


def test_every_figure(cli, pair, tmp_path) -> None:
    x = np.array([[1, 2, 4], [4, -1, 1], [0, 0.5, 0.25]], np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    options = ("--data", tmp_path / "d.npz", "--engine", "reference", "--json")
    outcome = cli("verify", *pair, *options)
    assert outcome.status == 4
    document = json.loads(outcome.out)
    rows = {row["output"]: row for row in document["outputs"]}
    h = np.maximum(x, 0).astype(np.float64)
    y = (h.astype(np.float32) + np.float32(0.01)).astype(np.float64)
    e = y - h
    found = rows["y"]
    assert found["max_abs"] == pytest.approx(np.abs(e).max(), rel=1e-12)
    assert found["mean_abs"] == pytest.approx(np.abs(e).mean(), rel=1e-12)
    assert found["max_rel"] == pytest.approx(np.abs(e).max() / 4, rel=1e-12)
    assert found["sqnr_db"] == pytest.approx(10 * math.log10((h * h).sum() / (e * e).sum()))
    assert found["cosine"] == pytest.approx((h * y).sum() / np.sqrt((h * h).sum() * (y * y).sum()))
    assert found["agreement"] == 1.0
    assert found["would_pass"] == f"--tolerance {rounded(found['max_rel'], up=True):g}"
    assert found["passed"] is False
    assert rows["z"]["passed"] is True
    assert rows["z"]["max_abs"] == 0
    assert document["details"]["First differences"]["rows"][0][0] == "y"


@pytest.mark.parametrize("option", ["--tolerance", "--atol", "--min-sqnr"])
def test_the_tolerance_that_would_pass_passes(cli, pair, option) -> None:
    base = {"--tolerance": [], "--atol": ["--atol", "y:0"], "--min-sqnr": ["--min-sqnr", "900"]}
    outcome = cli("verify", *pair, *base[option], "--json")
    assert outcome.status == 4
    rows = [r for r in json.loads(outcome.out)["outputs"] if not r["passed"]]
    for row in rows:
        name, value = row["would_pass"].split(" ")
        assert name == option
        if option == "--min-sqnr":  # z is equal: infinitely many dB
            row["would_pass"] = value
    worst = max(rows, key=lambda r: r["max_rel"])["would_pass"].split(" ")[-1]
    assert cli("verify", *pair, option, worst).status == 0


def test_tolerances_of_single_outputs(cli, pair) -> None:
    assert cli("verify", *pair, "--atol", "y:0.011").status == 0
    outcome = cli("verify", *pair, "--atol", "y:0.009")
    assert outcome.status == 4
    assert "asked at most 0.009; would pass with --atol y:0.011" in outcome.err
    for text, words in (("y", "name:1e-4"), ("q:1", "the outputs are y, z"), ("y:-1", "name:1e-4")):
        outcome = cli("verify", *pair, "--atol", text)
        assert outcome.status == 2
        assert words in outcome.err


@pytest.mark.parametrize("engine", ["onnxruntime", "reference", "openvino"])
def test_first_node_that_differs(tmp_path, engine) -> None:
    if available_engines()[engine] is None:
        pytest.skip(f"{engine} is not installed")
    chain = "a = Relu(x) b = Mul(a, a) c = Tanh(b) y = Identity(c) z = Neg(c)"
    first = _save(tmp_path / "a.onnx", chain)
    second = _save(tmp_path / "b.onnx", chain.replace("Mul(a, a)", "Add(a, a)"))
    with pytest.raises(MismatchError, match=r"'b' of node .* \(Add\) is the first that differs"):
        verify(first, second, engine=engine)


def test_nan_policy(cli, tmp_path) -> None:
    first = _save(tmp_path / "a.onnx", "y = Log(x) z = Neg(x)")
    second = _save(
        tmp_path / "b.onnx",
        "k = Constant<value = float {0.0}>() m = Max(x, k) y = Log(m) z = Neg(x)",
    )
    negative = np.array([[1, 2, 4], [-4, 1, 1]], np.float32)
    np.savez(tmp_path / "d.npz", x=negative)
    options = ("--data", tmp_path / "d.npz")
    assert cli("verify", first, first, *options).status == 0
    assert cli("verify", first, first, *options, "--nonfinite", "forbid").status == 4
    outcome = cli("verify", first, second, *options)
    assert outcome.status == 4
    assert "would pass" not in outcome.err
    outcome = cli("verify", first, second, *options, "--nonfinite", "ignore", "--json")
    assert outcome.status == 0
    assert "1 values on onnxruntime are not judged" in json.loads(outcome.out)["warnings"][0]
    finite = _save(tmp_path / "c.onnx", "e = Abs(x) y = Log(e) z = Neg(x)")
    outcome = cli("verify", finite, first, *options, "--nonfinite", "ignore")
    assert outcome.status == 4, "the reference is finite there"
    assert "max abs inf" in outcome.err
    assert cli("verify", first, first, "--nonfinite", "maybe").status == 2


def test_two_engines_of_one_file(cli, samples) -> None:
    model = samples / "digits_cnn.onnx"
    engines = ("--reference-engine", "reference", "--engine", "onnxruntime")
    outcome = cli("verify", model, model, *engines, "--json")
    assert outcome.status == 0
    assert [r["engine"] for r in json.loads(outcome.out)["outputs"]] == ["onnxruntime"]
    assert cli("verify", model, model, "--engine", "litert").status == 2


EMBED = """<ir_version: 10, opset_import: ["": 20]>
t (int64[N,S] ids, int64[N,S] mask, int32[N] lengths, float[S,N,2] x, int64[N] free)
  => (float[N,S,2] e, float[N,S] m, float[A,B,N,1] h)
<float[7,2] table, float one = {1.0}, float[1,1,2] w, float[1,1,1] r> {
  flat = Unsqueeze(ids, axis)  again = Cast<to=7>(ids)  e = Gather(table, again)
  f = Cast<to=1>(mask)  m = Sub(one, f)
  h = RNN<hidden_size=1>(x, w, r, , lengths)
}"""


def test_value_domains() -> None:
    model = ir.from_onnx_text(EMBED.replace("flat = Unsqueeze(ids, axis)", ""))
    infos = {value.name: tensor_info(value) for value in model.graph.inputs}
    domains = {name: info.domain for name, info in infos.items() if info.domain}
    assert domains == {"ids": (0, 7), "mask": (0, 2), "lengths": (1, 2)}
    asked = [replace(infos[name], shape=(64,)) for name in ("ids", "mask", "free")]
    feeds = random_feeds(asked, 0)
    assert set(feeds["ids"]) == set(range(7))
    assert set(feeds["mask"]) == {0, 1}
    assert set(feeds["free"]) == {0, 1, 2, 3}


def test_token_numbers_reach_the_whole_table(cli, tmp_path) -> None:
    """A changed row that numbers from 0 to 3 would never look up."""
    table = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    for name in ("a.onnx", "b.onnx"):
        model = ir.from_onnx_text(
            """<ir_version: 10, opset_import: ["": 20]>
            t (int64[N,S] ids, float[7,2] table) => (float[N,S,2] e) { e = Gather(table, ids) }"""
        )
        value = model.graph.inputs.pop()
        value.const_value = ir.tensor(table.copy(), name="table")
        model.graph.register_initializer(value)
        save_onnx(model, tmp_path / name)
        table[6] += 1
    assert cli("verify", tmp_path / "a.onnx", tmp_path / "b.onnx").status == 4
    assert cli("verify", tmp_path / "a.onnx", tmp_path / "a.onnx").status == 0
