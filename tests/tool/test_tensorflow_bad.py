"""Damaged and malicious files of TensorFlow and Keras: a named refusal, and nothing runs."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inline_worker import InlineWorker

from infer_runtime import errors
from infer_runtime.errors import InferError, ModelError, UnsupportedOpError
from infer_tool.importers import ImportOptions, import_source, tensorflow
from infer_tool.worker import Worker

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")
MUTATIONS, LOADED = 500, 12  # of each format: mutated; of those that pass the first look, loaded


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="last")])
    network.save(folder / "net.keras")
    network.save(folder / "net.h5")

    class Scale(tf.Module):
        def __init__(self):
            super().__init__()
            self.weight = tf.Variable([1.0, 2.0, 3.0])

        @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
        def run(self, x):
            return {"y": x * self.weight}

    module = Scale()
    tf.saved_model.save(module, str(folder / "saved"), signatures=module.run)
    with tf.Graph().as_default() as graph:
        tf.nn.relu(tf.compat.v1.placeholder(tf.float32, [None, 3]) * [1.0, 2.0, 3.0], name="y")
    (folder / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    names = {"keras": "net.keras", "keras_h5": "net.h5", "saved_model": "saved"}
    return {k: folder / n for k, n in names.items()} | {"graph_def": folder / "graph.pb"}


def _refused(path: Path, text: str, kind: type[InferError] = ModelError) -> None:
    with pytest.raises(kind, match=text) as caught:
        import_source(str(path), ImportOptions())
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal comes before TensorFlow is asked."""
    monkeypatch.setattr(tensorflow, "Worker", None)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow, "Worker", InlineWorker)


# --- Keras archives


def _archive(path: Path, source: Path, change=None, members=(), compression=zipfile.ZIP_STORED):
    """The archive again, its configuration changed in place by `change`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename == "config.json" and change is not None:
                document = json.loads(content)
                change(document)
                content = json.dumps(document)
            new.writestr(item.filename, content)
        for name, content in members:
            new.writestr(name, content)
    return path


def _layer(document: dict[str, Any]) -> dict[str, Any]:
    return document["config"]["layers"][-1]


def _custom(document):
    _layer(document).update(module="os", class_name="system")


def _registered(document):
    _layer(document).update(class_name="TorchModuleWrapper", module="keras.layers")


def _activation(document):
    function = {"class_name": "function", "module": "os.path", "config": "join"}
    _layer(document)["config"]["activation"] = function


def _utility(document):
    _layer(document).update(module="keras.src.utils.file_utils", class_name="get_file")


def _vocabulary(document):
    _layer(document).update(class_name="StringLookup")
    _layer(document)["config"]["vocabulary"] = "/etc/passwd"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_custom, r"class system of module 'os', layer 'last' is not loaded, it would run code"),
        (_registered, r"holds code \(TorchModuleWrapper, layer 'last'\)"),
        (_activation, r"class function of module 'os\.path' is not loaded"),
        (_utility, r"class get_file of module 'keras\.src\.utils\.file_utils'"),
        (_vocabulary, r"would read a file, vocabulary '/etc/passwd'"),
        (lambda document: document.clear(), r"its configuration describes no model"),
    ],
)
def test_configurations_that_act(whole, tmp_path, no_child, change, text) -> None:
    _refused(_archive(tmp_path / "evil.keras", whole["keras"], change), text)


def test_the_rewritten_archive_is_read(whole, tmp_path, inline) -> None:
    """The rewriting alone changes nothing."""
    path = _archive(tmp_path / "same.keras", whole["keras"], lambda document: None)
    assert import_source(str(path), ImportOptions()).kind == "keras"


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_lambda_does_not_run(tmp_path, inline, suffix) -> None:
    """In a .keras file and in an .h5 file, where older ones hold pickled byte code."""
    marker = tmp_path / "ran"
    touch = eval(f"lambda x: (open({str(marker)!r}, 'w'), x)[1]")
    network = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(touch, name="evil")])
    path = tmp_path / f"net.{suffix}"
    network.save(path)
    marker.unlink()
    _refused(path, r"holds code \(Lambda, layer 'evil'\), which is not run; export the model")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([("../outside.txt", "x")], r"'\.\./outside\.txt' lies outside"),
        ([("assets/../../outside.txt", "x")], r"lies outside"),
        ([("/tmp/outside.txt", "x")], r"lies outside"),
        ([("C:\\outside.txt", "x")], r"lies outside"),
        ([("bomb.bin", bytes(50 << 20))], r"bomb\.bin would grow from \d+ to 52428800 bytes"),
        ([("assets/a", "1"), ("assets/a", "2")], r"two members of the archive have one name"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_an_archive(whole, tmp_path, no_child, members, text) -> None:
    packed = zipfile.ZIP_DEFLATED
    path = _archive(tmp_path / "evil.keras", whole["keras"], None, members, packed)
    _refused(path, text)
    assert not (tmp_path.parent / "outside.txt").exists()


# --- HDF5


def test_hdf5_links_and_arrays_elsewhere(whole, tmp_path, inline) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64))
    for name, change, text in (
        (
            "link",
            lambda f: f.__setitem__("a", h5py.ExternalLink("/etc/other.h5", "/x")),
            r"is a link",
        ),
        ("soft", lambda f: f.__setitem__("a", h5py.SoftLink("/model_weights")), r"is a link"),
        (
            "external",
            lambda f: f.create_dataset("a", (16,), "f4", external=[(str(secret), 0, 64)]),
            r"/a lies in another file",
        ),
        (
            "bomb",
            lambda f: f.create_dataset("a", (1 << 33,), "f4", chunks=(1024,)),
            r"/a has 34359738368 bytes, but not its file",
        ),
    ):
        path = tmp_path / f"{name}.h5"
        shutil.copy(whole["keras_h5"], path)
        with h5py.File(path, "a") as file:
            change(file)
        _refused(path, text)


# --- graphs


def _saved(folder: Path, function) -> Path:
    module = tf.Module()
    module.run = tf.function(function, input_signature=[tf.TensorSpec([None, 3], name="x")])
    tf.saved_model.save(module, str(folder), signatures=module.run)
    return folder


def test_operations_on_files_do_not_run(tmp_path, no_child) -> None:
    marker = tmp_path / "ran"

    def write(x):
        with tf.control_dependencies([tf.io.write_file(str(marker), "x")]):
            return {"y": x + 1.0}

    _refused(
        _saved(tmp_path / "write", write),
        r"acts on files or calls code: WriteFile \(1x\), first at node 'WriteFile'",
        UnsupportedOpError,
    )
    path = _saved(tmp_path / "call", lambda x: {"y": tf.py_function(lambda v: v, [x], tf.float32)})
    _refused(path, r"calls code: EagerPyFunc \(1x\)", UnsupportedOpError)
    with tf.Graph().as_default() as graph:
        tf.io.read_file(tf.compat.v1.placeholder(tf.string, []))
    (tmp_path / "read.pb").write_bytes(graph.as_graph_def().SerializeToString())
    _refused(tmp_path / "read.pb", r"ReadFile \(1x\)", UnsupportedOpError)
    assert not marker.exists()


def test_printing_and_saving_are_left_out(tmp_path, inline) -> None:
    marker = tmp_path / "ran"

    def talk(x):
        tf.print(x, output_stream=f"file://{marker}")
        save = tf.raw_ops.SaveV2(
            prefix=str(marker), tensor_names=["x"], shape_and_slices=[""], tensors=[x]
        )
        with tf.control_dependencies([save]):
            return {"y": x + 1.0}

    imported = import_source(str(_saved(tmp_path / "talk", talk)), ImportOptions())
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(imported.reference({"x": x})["y"], x + 1)
    assert not list(tmp_path.glob("ran*"))


def _changed(source: Path, target: Path, change) -> Path:
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(source, target)
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((source / "saved_model.pb").read_bytes())
    change(proto.meta_graphs[0])
    (target / "saved_model.pb").write_bytes(proto.SerializeToString())
    return target


def test_assets_and_links_stay_inside(whole, tmp_path, no_child) -> None:
    path = _changed(
        whole["saved_model"],
        tmp_path / "asset",
        lambda meta: meta.asset_file_def.add(filename="../../etc/passwd"),
    )
    _refused(path, r"its asset '\.\./\.\./etc/passwd' lies outside its folder")
    linked = tmp_path / "linked"
    shutil.copytree(whole["saved_model"], linked)
    data = next((linked / "variables").glob("*.data*"))
    shutil.move(data, tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    _refused(linked, r"variables\.data\S+ links to a place outside the folder; .*--follow-links")


def test_links_that_the_user_allows(whole, tmp_path, inline) -> None:
    linked = tmp_path / "linked"
    shutil.copytree(whole["saved_model"], linked)
    shutil.move(linked / "variables", tmp_path / "elsewhere")
    (linked / "variables").symlink_to(tmp_path / "elsewhere")
    imported = import_source(str(linked), ImportOptions(follow_links=True))
    got = imported.reference({"x": np.ones((1, 3), np.float32)})
    np.testing.assert_array_equal(got["y"], [[1, 2, 3]])


def test_a_constant_of_any_size(tmp_path, no_child) -> None:
    with tf.Graph().as_default() as graph:
        tf.compat.v1.placeholder(tf.float32, []) + tf.constant(1.0, shape=[2], name="huge")
    proto = graph.as_graph_def()
    (node,) = [n for n in proto.node if n.name == "huge"]
    node.attr["value"].tensor.tensor_shape.dim[0].size = 1 << 40
    node.attr["value"].tensor.tensor_content = b""
    node.attr["value"].tensor.float_val.append(1.0)
    (tmp_path / "g.pb").write_bytes(proto.SerializeToString())
    _refused(tmp_path / "g.pb", r"constant 'huge' has 1099511627776 elements, but not its file")


# --- damage


@pytest.mark.parametrize("kind", ["keras", "keras_h5", "graph_def"])
def test_truncated(whole, tmp_path, kind, no_child) -> None:
    content = whole[kind].read_bytes()
    path = tmp_path / whole[kind].name
    for size in (9, 30, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        _refused(path, r".")


def _mutated(content: bytes, dice: random.Random) -> bytes:
    """One of: flipped bits, a piece overwritten, removed, doubled or cut off."""
    data, place = bytearray(content), dice.randrange(len(content))
    size = dice.choice([1, 4, 16, 64])
    how = dice.randrange(6)
    if how <= 1:
        for _ in range(dice.choice([1, 3, 20])):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif how == 2:
        data[place : place + size] = dice.randbytes(size)
    elif how == 3:
        data[place : place + size] = dice.choice([b"\x00", b"\xff"]) * size
    elif how == 4:
        del data[place : place + size]
    else:
        data[place:place] = data[place : place + size]
    return bytes(data) if dice.random() < 0.9 else bytes(data[:place])


class SharedWorker:
    """One child for all mutated files; a new one where it crashed, which is a refusal as well."""

    child: Worker | None = None
    asked = crashes = 0

    def __init__(self, module, source, options) -> None:
        cls = type(self)
        cls.asked += 1
        if cls.child is None:
            cls.child = Worker("shared_child", "shared", {}, seconds=60)
        self.folder = cls.child.folder
        feeds = {"source": np.array(source), "options": np.array(json.dumps(options))}
        try:
            answer = json.loads(cls.child(feeds)["answer"].item())
        except ModelError as error:
            cls.child = None
            cls.crashes += 1
            raise ModelError(f"{source}: {str(error).removeprefix('shared: ')}") from error
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["text"])
        # Its file is gone: that it could be written is enough.
        self.facts = {"route": "", "refused": answer["refused"] or {"none": "converted"}}


@pytest.mark.parametrize("kind", ["keras", "keras_h5", "saved_model", "graph_def"])
def test_mutations(whole, tmp_path, monkeypatch, kind) -> None:
    """All are looked at; those that look sound are loaded, until there were enough."""
    worker = type("Shared", (SharedWorker,), {})
    monkeypatch.setattr(tensorflow, "Worker", worker)
    dice, source = random.Random(kind), whole[kind]
    path = tmp_path / source.name
    if source.is_dir():
        shutil.copytree(source, path)
        target = path / "saved_model.pb"
    else:
        target = path
    content = (source / "saved_model.pb" if source.is_dir() else source).read_bytes()
    refused = []
    for _ in range(MUTATIONS):
        target.write_bytes(_mutated(content, dice))
        if worker.asked == LOADED:
            monkeypatch.setattr(tensorflow, "Worker", _enough)
        with pytest.raises((InferError, _EnoughError)) as caught:
            import_source(str(path), ImportOptions())
        if caught.type is not _EnoughError:
            refused.append(caught.value)
    assert worker.asked == LOADED
    assert len(refused) > LOADED
    for error in refused:
        assert error.exit_code in (2, 3), error
        assert str(path) in str(error)
        assert "\n" not in str(error)


class _EnoughError(Exception):
    pass


def _enough(*_):
    raise _EnoughError
