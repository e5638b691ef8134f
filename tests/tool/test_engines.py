"""Engines have one interface and one meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infer_runtime.errors import ModelError, UsageError
from infer_tool.engines import ENGINES, available_engines, open_engine

MODEL = Path(__file__).parents[2] / "sample_models" / "digits_cnn.onnx"
FEED = {"image": np.random.default_rng(0).random((3, 1, 8, 8)).astype(np.float32)}


def test_all_engines_agree() -> None:
    outputs = [open_engine(name, MODEL).run(FEED)["logits"] for name in ENGINES]
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ENGINES)
def test_interface(name) -> None:
    engine = open_engine(name, MODEL, threads=1)
    assert engine.name == name
    assert engine.version == available_engines()[name]
    assert [(i.name, i.shape[1:], i.dtype) for i in engine.inputs] == [
        ("image", (1, 8, 8), np.dtype(np.float32))
    ]


@pytest.mark.parametrize("name", ENGINES)
def test_fixed_shapes(name) -> None:
    engine = open_engine(name, MODEL, shapes={"image": (3, 1, 8, 8)})
    assert engine.inputs[0].shape == (3, 1, 8, 8)
    assert engine.run(FEED)["logits"].shape == (3, 10)
    with pytest.raises((ModelError, UsageError)):
        engine.run({"image": FEED["image"][:1]})
    with pytest.raises(UsageError, match="no input named 'pixels'"):
        open_engine(name, MODEL, shapes={"pixels": (1,)})


def test_unknown_engine() -> None:
    with pytest.raises(UsageError, match="expected one of auto, onnxruntime, reference"):
        open_engine("tensorrt", MODEL)


def test_broken_model_is_one_line(tmp_path) -> None:
    (tmp_path / "m.onnx").write_bytes(MODEL.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"m\.onnx") as caught:
        open_engine("onnxruntime", tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
