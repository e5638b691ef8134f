"""verify --layers and --bisect: the layer that was damaged is found, and the advice works."""

from __future__ import annotations

import json
import shlex

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_tool.attribution import common_values, rank_layers, without_layer

DAMAGED = "node_conv2d_1"


@pytest.fixture
def damaged(cli, samples, tmp_path):
    """An int8 network one of whose layers has its weights shuffled."""
    path = tmp_path / "damaged.onnx"
    arguments = ["--data", samples / "digits.npz", "--rounding", "nearest", "--runs", "0"]
    assert cli("quantize", samples / "digits_cnn.onnx", "-o", path, *arguments).status == 0
    model = ir.load(path)
    node = next(n for n in model.graph if n.name == DAMAGED)
    stored = node.inputs[1].producer().inputs[0]
    levels = stored.const_value.numpy()
    mixed = np.random.default_rng(0).permutation(levels.reshape(-1)).reshape(levels.shape)
    stored.const_value = ir.tensor(mixed, name=stored.name)
    ir.save(model, path)
    return path


def _report(cli, samples, path, *extra) -> dict:
    outcome = cli(
        "verify", samples / "digits_cnn.onnx", path, "--data", samples / "digits.npz", "--samples",
        "40", "--json", *extra,
    )  # fmt: skip
    assert outcome.status == 4, outcome.err
    return json.loads(outcome.out)


def test_damaged_layer_is_first_and_the_advice_runs(cli, samples, damaged) -> None:
    found = _report(cli, samples, damaged, "--layers", "--bisect")
    layers = found["details"]["Layers, the noisiest by itself first"]
    tried = found["details"]["Layers left out, one at a time"]
    assert layers["rows"][0][0] == DAMAGED
    assert max(found["layers"], key=lambda x: x["own_noise"] or 0)["node"] == DAMAGED
    own = {row[0]: float(row[3].removesuffix(" dB")) for row in layers["rows"] if row[3] != "exact"}
    assert own.pop(DAMAGED) < 5
    assert min(own.values()) > 25, "the others are blamed for nothing"
    assert tried["rows"][0][0] == DAMAGED
    assert float(tried["rows"][0][3].removesuffix(" dB")) > 10
    (advice,) = found["advice"]
    words = shlex.split(advice)
    assert words[:2] == ["infertool", "quantize"]
    assert words[words.index("--rounding") + 1] == "nearest"
    assert words[words.index("--exclude") + 1] == DAMAGED
    outcome = cli(*words[1:], "--runs", "0", "--json")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out)["accuracy"]["sqnr_db"] > 25


def test_errors_by_hand(samples, damaged) -> None:
    """Accumulated errors are those of both models' values; a layer left out is the source's."""
    source, candidate = ir.load(samples / "digits_cnn.onnx"), ir.load(damaged)
    images = np.load(samples / "digits.npz")["image"][:16]
    layers = {x.node: x for x in rank_layers(source, candidate, [{"image": images}])}
    wanted = Session(source).run({"image": images}, ["logits"])["logits"].astype(np.float64)
    got = Session(candidate).run({"image": images}, ["logits"])["logits"]
    last = next(x for x in layers.values() if x.value == "logits")
    ratio = 10 * np.log10(np.sum(wanted**2) / np.sum((got - wanted) ** 2))
    assert last.accumulated.db == pytest.approx(ratio, abs=1e-3)
    names = common_values(source, candidate)
    whole = without_layer(source, candidate, layers[DAMAGED], names)
    repaired = Session(whole).run({"image": images})["logits"]
    assert np.sum((repaired - wanted) ** 2) < 0.05 * np.sum((got - wanted) ** 2)


def test_dynamic_products_and_models_without_common_values(cli, samples, tmp_path) -> None:
    path = tmp_path / "d.onnx"
    arguments = ["--data", samples / "digits.npz", "--scheme", "int8-dynamic", "--runs", "0"]
    assert cli("quantize", samples / "digits_mlp.onnx", "-o", path, *arguments).status == 0
    outcome = cli("verify", samples / "digits_mlp.onnx", path, "--layers", "--bisect", "--json")
    assert outcome.status == 4
    rows = json.loads(outcome.out)["details"]["Layers, the noisiest by itself first"]["rows"]
    assert len(rows) >= 3
    renamed = ir.load(path)
    for node in renamed.graph:
        for output in node.outputs:
            if not output.is_graph_output():
                output.name = f"other_{output.name}"
    result = next(iter(renamed.graph.outputs))
    result.name = "other"
    ir.save(renamed, tmp_path / "r.onnx")
    outcome = cli("verify", samples / "digits_mlp.onnx", tmp_path / "r.onnx", "--layers")
    assert outcome.status == 2
    assert "no values of the same name" in outcome.err
