"""Every form in which TensorFlow and Keras keep models, and how its parts are named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from inline_worker import InlineWorker

from infer_runtime import Session
from infer_runtime.errors import ModelError, UsageError
from infer_tool.importers import ImportOptions, import_source

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
v1 = tf.compat.v1
SHARED = Path(__file__).parents[3] / "shared" / "models"
R = np.random.default_rng(7)
X, Q = (R.normal(size=(n, 4)).astype(np.float32) for n in (3, 3))


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer_tool.importers.tensorflow.Worker", InlineWorker)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """A SavedModel of TensorFlow 1 with two signatures, its frozen graph, and its weights."""
    folder = tmp_path_factory.mktemp("old")
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        x = v1.placeholder(tf.float32, [None, 4], name="in/x")
        q = v1.placeholder(tf.float32, [None, 4], name="in/q")
        weights = v1.get_variable("w", [4, 3], use_resource=False)
        y = tf.matmul(x - 2 * q, weights, name="out/y")
        p = tf.nn.softmax(y, name="out/p")
        parts = tf.split(y, [1, 2], axis=1, name="parts")
        session.run(v1.global_variables_initializer())
        define = v1.saved_model.predict_signature_def
        builder = v1.saved_model.Builder(str(folder / "saved"))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                "raw": define({"q": q, "x": x}, {"y": y, "twice": y}),
                "p": define({"x": x, "q": q}, {"p": p}),
            },
        )
        builder.save()
        frozen = v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), ["out/p", *(t.op.name for t in parts)]
        )
        values = session.run(weights)
    (folder / "frozen.pb").write_bytes(frozen.SerializeToString())
    return folder / "saved", folder / "frozen.pb", (X - 2 * Q) @ values


def _softmax(y):
    e = np.exp(y - y.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _run(imported, feeds):
    """Of both sides, which must agree on the names and order of the outputs."""
    names = [v.name for v in imported.model.graph.outputs]
    got, wanted = Session(imported.model).run(feeds), imported.reference(feeds)
    assert list(got) == names
    assert set(wanted) == set(names)
    for name in names:
        np.testing.assert_allclose(got[name], wanted[name], rtol=0, atol=1e-5)
    return got


def test_saved_model_of_tensorflow_1(old) -> None:
    path, _, y = old
    imported = import_source(str(path), ImportOptions(signature="raw"))
    got = _run(imported, {"x": X, "q": Q})
    assert set(got) == {"y", "twice"}
    for value in got.values():
        np.testing.assert_allclose(value, y, rtol=0, atol=1e-5)
    got = _run(import_source(str(path), ImportOptions(signature="p")), {"x": X, "q": Q})
    np.testing.assert_allclose(got["p"], _softmax(y), rtol=0, atol=1e-6)
    only = import_source(str(path), ImportOptions(signature="raw", output_name=("twice",)))
    assert list(_run(only, {"x": X, "q": Q})) == ["twice"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, r"has the signatures p, raw; choose one with --signature"),
        ({"signature": "q"}, r"--signature q: .*saved has p, raw"),
        ({"signature": "p", "output_name": ("y",)}, r"--output-name y: .*saved has p$"),
        ({"signature": "p", "input": ("z:1x4",)}, r"--input z: .*saved has q, x"),
    ],
)
def test_what_a_signature_has_not(old, options, text) -> None:
    with pytest.raises(UsageError, match=text):
        import_source(str(old[0]), ImportOptions(**options))


def test_frozen_graph(old) -> None:
    """Inputs are the placeholders, outputs what nobody uses; nodes keep their names."""
    _, path, y = old
    imported = import_source(str(path), ImportOptions())
    assert imported.kind == "graph_def"
    assert [v.name for v in imported.model.graph.inputs] == ["in/q", "in/x"]
    got = _run(imported, {"in/x": X, "in/q": Q})
    assert set(got) == {"out/p", "parts", "parts:1"}
    np.testing.assert_allclose(got["out/p"], _softmax(y), rtol=0, atol=1e-6)
    np.testing.assert_allclose(got["parts:1"], y[:, 1:], rtol=0, atol=1e-5)


def test_frozen_graph_cut_where_the_user_says(old) -> None:
    _, path, y = old
    options = ImportOptions(output_name=("out/p", "out/y:0"), input=("out/y:Nx3",))
    imported = import_source(str(path), options)
    (value,) = imported.model.graph.inputs
    assert (value.name, str(value.shape)) == ("out/y", "[N,3]")
    got = _run(imported, {"out/y": y})
    assert list(got) == ["out/p", "out/y:0"]
    np.testing.assert_allclose(got["out/p"], _softmax(y), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"output_name": ("nope",)}, r"--output-name nope: .*no such node; it ends in .*out/p"),
        ({"output_name": ("out/p:3",)}, r"--output-name out/p:3: "),
        ({"input": ("nope:1x4",)}, r"--input nope: .*placeholders: in/.*, in/"),
    ],
)
def test_what_a_graph_has_not(old, options, text) -> None:
    with pytest.raises(UsageError, match=text):
        import_source(str(old[1]), ImportOptions(**options))


def test_a_graph_without_inputs(tmp_path) -> None:
    with tf.Graph().as_default() as graph:
        tf.constant([1.0], name="one") + 1.0
    (tmp_path / "g.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(ModelError, match=r"g\.pb: the graph shows no input; name one with --input"):
        import_source(str(tmp_path / "g.pb"), ImportOptions())


@pytest.fixture(scope="module")
def network() -> object:
    """Two inputs; one of dynamic length."""
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(1)
    rows, flag = tf.keras.Input((None, 3), name="rows"), tf.keras.Input((2,), name="flag")
    x = layers.Bidirectional(layers.LSTM(4))(rows)
    x = layers.BatchNormalization(name="norm")(layers.Concatenate()([x, flag]))
    model = tf.keras.Model([rows, flag], {"score": layers.Dense(2, activation="gelu")(x)})
    model.get_layer("norm").moving_mean.assign(R.normal(size=10).astype(np.float32))
    return model


@pytest.mark.parametrize("name", ["net.keras", "net.h5", "net.weird"])
def test_keras_files_whatever_their_suffix(tmp_path, network, name) -> None:
    path = tmp_path / name.replace("weird", "h5")
    network.save(path)
    path = path.rename(tmp_path / name)
    imported = import_source(str(path), ImportOptions())
    assert imported.kind == ("keras" if name == "net.keras" else "keras_h5")
    shapes = {v.name: str(v.shape) for v in imported.model.graph.inputs}
    assert shapes == {"rows": "[batch,rows_1,3]", "flag": "[batch,2]"}
    feeds = {"rows": R.normal(size=(3, 5, 3)), "flag": R.normal(size=(3, 2))}
    feeds = {n: x.astype(np.float32) for n, x in feeds.items()}
    got = _run(imported, feeds)
    wanted = network(feeds, training=False)["score"].numpy()
    np.testing.assert_allclose(got["score"], wanted, rtol=0, atol=1e-6)


def test_stated_shapes_take_the_place_of_dynamic_ones(tmp_path, network) -> None:
    network.save(tmp_path / "net.keras")
    options = ImportOptions(input=("rows:Nx5x3",))
    imported = import_source(str(tmp_path / "net.keras"), options)
    shapes = {v.name: str(v.shape) for v in imported.model.graph.inputs}
    assert shapes == {"rows": "[N,5,3]", "flag": "[batch,2]"}
    with pytest.raises(UsageError, match=r"--input rows: .* has it with shape \(None, None, 3\)"):
        import_source(str(tmp_path / "net.keras"), ImportOptions(input=("rows:1x5x4",)))


def test_weights_alone_are_no_model(tmp_path, network) -> None:
    path = tmp_path / "net.weights.h5"
    network.save_weights(path)
    with pytest.raises(
        ModelError, match=r"net\.weights\.h5: holds no architecture .*save the whole"
    ):
        import_source(str(path), ImportOptions())


def test_a_saved_model_without_signature(tmp_path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"empty: has no signature; save it with signatures="):
        import_source(str(tmp_path / "empty"), ImportOptions())


def test_part_of_a_saved_model(old) -> None:
    with pytest.raises(ModelError, match=r"is part of a SavedModel; name its folder, .*saved"):
        import_source(str(old[0] / "saved_model.pb"), ImportOptions())


@pytest.mark.skipif(not (SHARED / "resnet8_cifar10.h5").is_file(), reason="shared models absent")
def test_resnet8() -> None:
    """Trained by TensorFlow 2.4; the same network as a TFLite file."""
    imported = import_source(str(SHARED / "resnet8_cifar10.h5"), ImportOptions())
    twin = import_source(str(SHARED / "resnet8_cifar10_float.tflite"), ImportOptions())
    x = R.uniform(0, 255, size=(1, 32, 32, 3)).astype(np.float32)
    (name,) = [v.name for v in imported.model.graph.inputs]
    (got,) = _run(imported, {name: x}).values()
    (other,) = Session(twin.model).run({twin.model.graph.inputs[0].name: x}).values()
    np.testing.assert_allclose(got, other, rtol=0, atol=1e-5)
