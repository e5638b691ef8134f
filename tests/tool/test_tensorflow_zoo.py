"""Small networks of Keras and TensorFlow: correct, or refused by name; never wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from inline_worker import InlineWorker

from infer_runtime import Session
from infer_runtime.errors import UnsupportedOpError
from infer_tool.importers import ImportOptions, import_source
from passes.feeds import random_feeds

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "importers"))
from keras_zoo import ZOO  # noqa: E402

LIMIT = 1e-5  # of the output's largest value
TFLITE = {"stft", "assorted"}
REFUSED = {"hashed": "StringToHashBucketFast"}
SIZES = {"input_layer": (3, 9, 5), "boxes": (12, 4), "scores": (12,), "n": ()}


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer_tool.importers.tensorflow.Worker", InlineWorker)


def _feeds(session, seed):
    """Three samples of seven steps; seeds differ in size and sign too."""
    sizes = {
        i.name: tuple(
            d
            if isinstance(d, int)
            else (3 if axis == 0 and i.name not in ("boxes", "scores") else 7)
            for axis, d in enumerate(i.shape)
        )
        for i in session.inputs
    }
    feeds = random_feeds(session.inputs, seed=seed, shapes=sizes)
    return {n: x * (1 - 2.5 * seed) if x.dtype == np.float32 else x for n, x in feeds.items()}


def _source(path: Path):
    """The model as its framework runs it, loaded by this test."""
    if path.suffix == ".keras":
        model = tf.keras.models.load_model(path, compile=False)
        return lambda feeds: {"output_0": model(*feeds.values(), training=False).numpy()}
    function = tf.saved_model.load(str(path)).signatures["serving_default"]
    return lambda feeds: {
        n: v.numpy() for n, v in function(**{k: tf.constant(x) for k, x in feeds.items()}).items()
    }


def _onnxruntime(model, folder):
    ir.save(model, folder / "model.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(folder / "model.onnx", options)
    names = [o.name for o in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(None, feeds), strict=True))


def _assert_equal(wanted, got) -> None:
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype, name
        largest = max(1.0, np.abs(value).max(initial=0)) if value.dtype.kind == "f" else 0
        np.testing.assert_allclose(got[name], value, rtol=0, atol=LIMIT * largest, err_msg=name)


@pytest.mark.parametrize("name", sorted(set(ZOO) - set(REFUSED)))
def test_correct(name, tmp_path) -> None:
    path = ZOO[name](tmp_path)
    imported = import_source(str(path), ImportOptions())
    assert imported.route.startswith("tflite; tf2onnx: " if name in TFLITE else "tf2onnx")
    source, session = _source(path), Session(imported.model)
    engine = _onnxruntime(imported.model, tmp_path)
    for seed in range(3):
        feeds = _feeds(session, seed)
        wanted = source(feeds)
        for run in (session.run, engine, imported.reference):
            _assert_equal(wanted, run(feeds))


@pytest.mark.parametrize(("name", "op"), REFUSED.items())
def test_refused_by_name(name, op, tmp_path) -> None:
    path = ZOO[name](tmp_path)
    with pytest.raises(UnsupportedOpError) as caught:
        import_source(str(path), ImportOptions())
    text = str(caught.value)
    assert text.startswith(f"{path}: cannot be converted: tf2onnx: no ONNX operator for {op} (1x)")
    assert "; tflite: " in text
    assert "\n" not in text


def test_one_hot_as_tf2onnx_writes_it_is_wrong(tmp_path, monkeypatch) -> None:
    """Without the repair the comparison notices, and TensorFlow's own converter is asked."""
    from tf2onnx.handler import tf_op

    monkeypatch.setattr("infer_tool.importers.tf2onnx_repairs.OneHot", type("Nothing", (), {}))
    for handlers in next(iter(tf_op.get_opsets().values()))[18:]:
        monkeypatch.delitem(handlers, "OneHot", raising=False)
    path = ZOO["one_hot"](tmp_path)
    imported = import_source(str(path), ImportOptions(output_name=("last",)))
    assert imported.route.startswith("tflite; tf2onnx: the converted graph differs from its source")
    i = np.array([[0, 1, 2]], np.int32)
    wanted = [[[0, 0, 0], [0, 0, 0], [1, 0, 0]]]
    np.testing.assert_array_equal(Session(imported.model).run({"i": i})["last"], wanted)
