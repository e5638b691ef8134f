"""SavedModels and .keras files, compared with TensorFlow itself."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from infer_runtime import Session
from infer_runtime.errors import MissingExtraError, ModelError
from infer_tool.importers import ImportOptions, import_source

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
R = np.random.default_rng(4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    """Two inputs, two named outputs; grouped convolution and exact GELU, which tf2onnx gets wrong."""
    keras = pytest.importorskip("keras")
    pytest.importorskip("tf2onnx")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    picture, extra = keras.Input((8, 8, 4), name="picture"), keras.Input((5,), name="extra")
    x = layers.Conv2D(8, 3, groups=2, padding="same", activation="gelu")(picture)
    x = layers.GlobalAveragePooling2D()(x)
    joined = layers.Concatenate()([x, layers.Dense(4, activation="gelu")(extra)])
    outputs = {"left": layers.Dense(3)(joined), "right": layers.Dense(2, activation="softmax")(x)}
    model = keras.Model([picture, extra], outputs)
    path = tmp_path_factory.mktemp("keras") / "net.keras"
    model.save(path)
    return path, model


def test_keras(model, capfd) -> None:
    path, source = model
    capfd.readouterr()
    imported = import_source(str(path), ImportOptions())
    feeds = {
        "picture": R.normal(size=(3, 8, 8, 4)).astype(np.float32),
        "extra": R.normal(size=(3, 5)).astype(np.float32),
    }
    results = Session(imported.model).run(feeds), imported.reference(feeds)
    assert capfd.readouterr() == ("", "")
    wanted = source(feeds, training=False)
    for got in results:
        assert set(got) == {"left", "right"}
        for name, value in got.items():
            np.testing.assert_allclose(value, wanted[name].numpy(), rtol=0, atol=1e-6)
    assert imported.kind == "keras"
    assert {str(v.shape[0]) for v in imported.model.graph.inputs} == {"batch"}


def test_saved_model(tmp_path) -> None:
    """A loop whose length is an input, and one name for an input and an output."""
    tf = pytest.importorskip("tensorflow")

    class Loop(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None, 4], name="x"), tf.TensorSpec([], tf.int32, "n")]
        )
        def run(self, x, n):
            for _ in tf.range(n):
                x = x * 1.5 + 1.0
            return {"y": x, "n": n + 1}

    module = Loop()
    tf.saved_model.save(module, str(tmp_path / "loop"), signatures=module.run)
    imported = import_source(str(tmp_path / "loop"), ImportOptions())
    x = R.normal(size=(2, 4)).astype(np.float32)
    for number in (0, 3):
        feeds = {"x": x, "n": np.array(number, np.int32)}
        wanted = x * 1.5**number + sum(1.5**k for k in range(number))
        for got in (Session(imported.model).run(feeds), imported.reference(feeds)):
            np.testing.assert_allclose(got["y"], wanted, rtol=0, atol=1e-5)
            assert got["n_output"] == number + 1


def test_operations_that_onnx_has_not(tmp_path) -> None:
    """tf2onnx copies the operation through and ends well; the other converter does not."""
    tf = pytest.importorskip("tensorflow")

    class Hash(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def run(self, text):
            return {"y": tf.strings.to_hash_bucket_fast(text, 10)}

    module = Hash()
    tf.saved_model.save(module, str(tmp_path / "hash"), signatures=module.run)
    with pytest.raises(
        ModelError, match=r"hash: .*no ONNX operator for StringToHashBucketFast \(1x\)"
    ):
        import_source(str(tmp_path / "hash"), ImportOptions())


def test_a_damaged_keras_file(tmp_path, model) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(model[0]) as old, zipfile.ZipFile(path, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            new.writestr(item, content[:100] if item.filename == "config.json" else content)
    with pytest.raises(ModelError, match=r"net\.keras: config\.json is damaged; copy") as caught:
        import_source(str(path), ImportOptions())
    assert "\n" not in str(caught.value)


def test_without_tf2onnx_the_extra_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01\x12\x02\x12\x00")
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(MissingExtraError, match=r"tf2onnx .*pip install 'infertool\[tensorflow\]'"):
        import_source(str(tmp_path), ImportOptions())
