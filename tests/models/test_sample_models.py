"""The bundled models are what their README says, in every format."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "sample_models"
ROW = re.compile(
    r"^\| `(?P<onnx>[\w.]+)` \| `(?P<own>[\w.]+)` \| `(?P<data>[\w.]+)` \| (?P<accuracy>[\d.]+) % "
    r"\| (?P<parameters>[\d,]+) \| (?P<bytes>[\d,]+) \|$",
    re.MULTILINE,
)
ROWS = [m.groupdict() for m in ROW.finditer((FOLDER / "README.md").read_text())]


def _arrays(row: dict[str, str]) -> tuple[str, np.ndarray, np.ndarray]:
    with np.load(FOLDER / row["data"], allow_pickle=False) as data:
        (name,) = set(data.files) - {"labels"}
        return name, data[name], data["labels"]


def test_the_table_is_complete() -> None:
    assert {r["onnx"] for r in ROWS} == {p.name for p in FOLDER.glob("*.onnx")}
    assert len(ROWS) >= 3


def test_all_together_are_small() -> None:
    files = [p for p in FOLDER.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(p.stat().st_size for p in files) < 3_000_000


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["onnx"])
def test_readme_tells_the_truth(row) -> None:
    path = FOLDER / row["onnx"]
    name, images, labels = _arrays(row)
    session = ort.InferenceSession(path)
    assert [i.name for i in session.get_inputs()] == [name]
    scores = session.run(None, {name: images})[0]
    assert f"{100 * np.mean(scores.argmax(1) == labels):.2f}" == row["accuracy"]
    assert path.stat().st_size == int(row["bytes"].replace(",", ""))


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r["own"].endswith(".pt2")], ids=lambda r: r["own"]
)
def test_torch_gives_the_same(row) -> None:
    name, images, _ = _arrays(row)
    program = torch.export.load(FOLDER / row["own"])
    # The counter of batches of a BatchNorm is no parameter.
    counts = [v.numel() for v in program.state_dict.values() if v.is_floating_point()]
    assert sum(counts) == int(row["parameters"].replace(",", ""))
    wanted = program.module()(torch.from_numpy(images))
    got = ort.InferenceSession(FOLDER / row["onnx"]).run(None, {name: images})[0]
    np.testing.assert_allclose(got, wanted.detach().numpy(), rtol=0, atol=1e-4)


def test_keras_gives_the_same() -> None:
    import keras

    row = next(r for r in ROWS if r["own"].endswith(".keras"))
    name, images, _ = _arrays(row)
    model = keras.saving.load_model(FOLDER / row["own"])
    assert model.count_params() == int(row["parameters"].replace(",", ""))
    wanted = model(images).numpy()
    got = ort.InferenceSession(FOLDER / row["onnx"]).run(None, {name: images})[0]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4)


MODELS = sorted(p for p in FOLDER.iterdir() if p.suffix in (".onnx", ".pt2", ".keras"))


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name)
def test_no_local_paths(path) -> None:
    content = path.read_bytes()
    here = str(FOLDER.parent).encode(), str(Path.home()).encode() + b"/"
    for word in (b"site-packages", b"/home/", b"/tmp/", b"train_torch.py", *here):
        assert word not in content
