"""`infertool prune --target-latency`: a budget that is measured, or refused with what was measured."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest

pytest.importorskip("torch")


@pytest.fixture
def wide(tmp_path):
    """A network whose time is that of its convolutions, and samples."""
    r = np.random.default_rng(0)
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[N,16,24,24] x, float[128,16,3,3] w1, float[128,128,3,3] w2, float[4,128] w3)
    => (float[N,4] y)
    { a = Conv<pads=[1,1,1,1]>(x, w1)  ar = Relu(a)  b = Conv<pads=[1,1,1,1]>(ar, w2)  br = Relu(b)
      p = GlobalAveragePool(br)  f = Flatten(p)  y = Gemm<transB=1>(f, w3) }"""
    model = ir.from_onnx_text(text)
    for value in list(model.graph.inputs)[1:]:
        shape = tuple(value.shape.numpy())
        array = r.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
        model.graph.register_initializer(value)
    ir.save(model, tmp_path / "wide.onnx")
    np.savez(tmp_path / "x.npz", x=r.normal(size=(40, 16, 24, 24)).astype(np.float32))
    return tmp_path


def command(folder, budget: str, *more: object) -> list[str]:
    words = ["prune", folder / "wide.onnx", "--data", folder / "x.npz", "-o", folder / "o.onnx"]
    words += ["--target-latency", budget, "--epochs", 0, "--batch-size", 8, "--json"]
    return [str(w) for w in (*words, "--importance", "magnitude", *more)]


def test_a_candidate_that_was_measured(cli, wide) -> None:
    result = cli(*command(wide, "80%", "--runs", 20))
    assert result.status == 0, result.err
    report = json.loads(result.out)
    (search,) = (s["options"] for s in report["stages"] if s["name"] == "search")
    assert 0 < search["share"] < 1
    assert min(c["ratio"] for c in search["candidates"]) < 0.8
    assert report["artifact"]["macs"] <= search["share"] * report["source"]["macs"]
    (gate,) = report["gates"]
    assert (gate["name"], gate["limit"], gate["passed"]) == ("target-latency", 0.8, True)
    shapes = [list(i.dims) for i in onnx.load(wide / "o.onnx").graph.initializer]
    assert all(n % 8 == 0 for shape in shapes for n in shape[:1] if len(shape) == 4)


@pytest.mark.parametrize(
    ("budget", "more", "words"),
    [
        ("100s", [], "the source takes"),
        ("0.001ms", [], "the fastest candidate"),
        ("0%", [], "more than 0%"),
        ("120%", [], "less than 100%"),
        ("0.6", [], "expected a share such as 60%, or a time"),
        ("fast", [], "target-latency"),
        ("-3ms", [], "more than 0"),
        ("60%", ["--runs", 0], "needs measurements"),
        ("60%", ["--target-macs", "50%"], "give one of"),
        ("60%", ["--store", "dense"], "--store does not go with"),
    ],
)
def test_what_is_refused(cli, wide, budget, more, words) -> None:
    result = cli(*command(wide, budget, "--runs", 5, *more))
    assert result.status == 2, result.err
    assert words in result.err
    assert not (wide / "o.onnx").exists()
