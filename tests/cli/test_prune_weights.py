"""`infertool prune --sparsity` and `--pattern`: zeros that are really there, in a smaller file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_tool.engines import open_engine
from infer_tool.files import sha256
from passes.graph import constant

pytest.importorskip("torch")


def command(samples: Path, out: Path, *more: object, model: Path | None = None) -> list[str]:
    """Pruning of weights of a bundled network."""
    words = [
        "prune",
        model or samples / "digits_cnn.onnx",
        "--data",
        samples / "digits.npz",
        "-o",
        out,
    ]
    return [str(w) for w in (*words, "--epochs", 2, "--runs", 0, "--json", *more)]


def weights(path: Path) -> dict[str, np.ndarray]:
    """Constants of at least 64 elements as an engine sees them, by name."""
    model = ir.load(path)
    names = [n.inputs[1].name for n in model.graph if n.op_type in ("Conv", "Gemm", "MatMul")]
    feeds = {i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in Session(model).inputs}
    held = {n: constant(v) for n, v in model.graph.initializers.items() if n in names}
    computed = [n for n in names if n not in held]
    found = held | (Session(model).run(feeds, computed) if computed else {})
    return {n: a for n, a in found.items() if a.size >= 64}


def test_most_weights_go_and_the_file_is_small(cli, samples, tmp_path) -> None:
    out = tmp_path / "sparse.onnx"
    more = ["--sparsity", "80%", "--rounds", 2, "--max-drop", "5%"]
    result = cli(*command(samples, out, *more))
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert report["artifact"]["bytes"] == out.stat().st_size < 0.3 * report["source"]["bytes"]
    stages = {s["name"]: s for s in report["stages"]}  # the last of each name
    assert stages["store"]["options"]["zeros"] == pytest.approx(0.8, abs=1e-3)
    assert stages["verify:onnxruntime"]["max_abs_error"] < 1e-4
    assert any("not faster" in text for text in report["warnings"])
    found = weights(out).values()
    assert sum(np.count_nonzero(a) for a in found) <= 0.2 * sum(a.size for a in found)
    dense, again = tmp_path / "dense.onnx", tmp_path / "again.onnx"
    assert cli(*command(samples, dense, *more, "--store", "dense")).status == 0
    assert cli(*command(samples, again, *more)).status == 0
    assert sha256(again) == sha256(out)
    with np.load(samples / "digits.npz") as data:
        got = [
            open_engine("onnxruntime", p).run({"image": data["image"]})["logits"]
            for p in (out, dense)
        ]
        assert np.mean(got[0].argmax(1) == data["labels"]) > 0.9
    np.testing.assert_array_equal(*got)


@pytest.mark.parametrize("method", ["magnitude", "movement"])
def test_patterns(cli, samples, tmp_path, method) -> None:
    out = tmp_path / "sparse.onnx"
    result = cli(*command(samples, out, "--pattern", "2:4", "--method", method))
    assert result.status == 0, result.err
    refused = [s["refusals"] for s in json.loads(result.out)["stages"] if s["name"] == "prune"][-1]
    assert any("not divisible by 4" in r["reason"] for r in refused)  # the image has one channel
    for array in weights(out).values():
        if array.shape[1] % 4 == 0:
            last = np.moveaxis(array, 1, -1)
            assert np.count_nonzero(last.reshape(-1, 4), axis=1).max() == 2


def test_without_training(cli, samples, tmp_path) -> None:
    out = tmp_path / "sparse.onnx"
    result = cli(
        *command(samples, out, "--sparsity", 0.6, "--method", "wanda", "--max-drop", "10%"),
        "--epochs", 0,
    )  # fmt: skip
    assert result.status == 0, result.err
    again = tmp_path / "again.onnx"
    result = cli(*command(samples, again, "--sparsity", "90%", model=out), "--epochs", 0)
    assert result.status == 0, result.err
    assert again.stat().st_size < 0.6 * out.stat().st_size  # it saw all weights of the first


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (["--sparsity", "0%"], 2, "more than 0%"),
        (["--sparsity", "100%"], 2, "less than 100%"),
        (["--sparsity", "99.999%"], 2, "leaves nothing of a weight"),
        (["--sparsity", "80%", "--pattern", "2:4"], 2, "give one of"),
        (["--sparsity", "80%", "--target-macs", "50%"], 2, "give one of"),
        (["--pattern", "4:2"], 2, "expected N:M"),
        (["--pattern", "2:4", "--uniform"], 2, "--uniform is for --sparsity"),
        (["--pattern", "7:32"], 0, ""),
        (["--target-macs", "50%", "--method", "wanda"], 2, "--method does not go with"),
        (["--sparsity", "80%", "--multiple", "4"], 2, "--multiple does not go with"),
        (["--sparsity", "80%", "--method", "movement"], 2, "needs at least 2 --epochs"),
        (["--sparsity", "80%", "--method", "other"], 2, "other"),
        (["--sparsity", "80%", "--max-drop", "-5%"], 1, "max-drop"),
    ],
)  # fmt: skip
def test_what_is_refused(cli, samples, tmp_path, more, status, words) -> None:
    result = cli(*command(samples, tmp_path / "small.onnx"), "--epochs", 0, *more)
    assert result.status == status, result.err
    assert words in result.err
    assert bool(list(tmp_path.iterdir())) == (status == 0)


def test_no_checkpoint_of_scores(cli, samples, tmp_path) -> None:
    more = ["--sparsity", "80%", "--method", "movement", "--checkpoint", tmp_path / "s.npz"]
    result = cli(*command(samples, tmp_path / "small.onnx", *more))
    assert result.status == 2
    assert "--checkpoint does not keep the scores" in result.err
