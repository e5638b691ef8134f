"""ONNX sources: what the version converter gets wrong, names, constants, damage."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from infer_runtime import Session
from infer_runtime.errors import InferError, ModelError, UsageError
from infer_tool.importers import ImportOptions, import_source
from infer_tool.importers.detect import detect

VALUE = helper.make_tensor_value_info
R = np.random.default_rng(5)


def _save(path: Path, nodes: list, opset: int, ir_version: int = 7, **constants) -> Path:
    graph = helper.make_graph(
        nodes, "g", [VALUE("x", TensorProto.FLOAT, None)], [VALUE("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    onnx.save(model, path)
    return path


def _exact(source: Path | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(source, options)


def _check(path: Path, x: np.ndarray) -> ir.Model:
    """The original in ONNX Runtime, our import there and in our runtime: the same outputs."""
    model = import_source(str(path), ImportOptions()).model
    (wanted,) = _exact(path).run(None, {"x": x})
    emitted = _exact(ir.to_proto(model).SerializeToString())
    np.testing.assert_allclose(emitted.run(None, {"x": x})[0], wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(Session(model).run({"x": x})["y"], wanted, rtol=0, atol=1e-6)
    return model


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("opset", [7, 9, 10])
def test_resizing_keeps_its_old_coordinates(tmp_path, opset, scale, mode) -> None:
    """Resize of opset 11 has other defaults than Upsample; a plain upgrade is off by a tenth."""
    scales = np.float32([1, 1, scale, scale])
    if opset == 7:
        node = helper.make_node("Upsample", ["x"], ["y"], mode=mode, scales=scales.tolist())
        path = _save(tmp_path / "m.onnx", [node], opset)
    else:
        kind = "Upsample" if opset == 9 else "Resize"
        node = helper.make_node(kind, ["x", "s"], ["y"], mode=mode)
        path = _save(tmp_path / "m.onnx", [node], opset, s=scales)
    _check(path, R.normal(size=(1, 2, 4, 6)).astype(np.float32))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_shrinking_with_the_first_resize(tmp_path, mode) -> None:
    node = helper.make_node("Resize", ["x", "s"], ["y"], mode=mode)
    path = _save(tmp_path / "m.onnx", [node], 10, s=np.float32([1, 1, 0.5, 0.4]))
    _check(path, R.normal(size=(1, 2, 9, 10)).astype(np.float32))


def test_unknown_operator_of_an_old_opset_is_named(tmp_path) -> None:
    path = _save(tmp_path / "m.onnx", [helper.make_node("Rellu", ["x"], ["y"], name="r")], 9)
    with pytest.raises(ModelError, match=r"node r \(Rellu\): no such operator in ONNX opset 9"):
        import_source(str(path), ImportOptions())


def _branch(value: float) -> onnx.GraphProto:
    """Both branches use the same names, as exporters do."""
    nodes = [
        helper.make_node("Constant", [], ["k"], value_float=value, name="n"),
        helper.make_node("Add", ["x", "k"], ["o"], name="add"),
    ]
    return helper.make_graph(nodes, "branch", [], [VALUE("o", TensorProto.FLOAT, None)])


@pytest.mark.parametrize("opset", [13, 20])
def test_names_in_branches_become_unique(tmp_path, opset) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=_branch(1.0), else_branch=_branch(2.0)),
    ]
    path = _save(tmp_path / "m.onnx", nodes, opset, zero=np.float32(0))
    for sign in (-1, 1):
        model = _check(path, sign * np.ones(3, np.float32))
    names = [v.name for n in model.graph.all_nodes() for v in n.outputs]
    assert len(set(names)) == len(names)
    assert names[-1] == "y" or "y" in names


def test_initialisers_listed_as_inputs(tmp_path) -> None:
    """IR version 3 lists them all; from 4 on a listed one is a default that feeds may replace."""
    for version, inputs in ((3, ["x"]), (8, ["x", "k"])):
        path = _save(tmp_path / "m.onnx", [helper.make_node("Add", ["x", "k"], ["y"])], 9,
                     k=np.float32([1, 2]))  # fmt: skip
        proto = onnx.load(path)
        proto.ir_version = version
        proto.graph.input.append(VALUE("k", TensorProto.FLOAT, [2]))
        onnx.save(proto, path)
        model = _check(path, np.float32([3, 4]))
        assert [v.name for v in model.graph.inputs] == inputs


@pytest.mark.parametrize("opset", [17, 20])
def test_local_functions(tmp_path, opset) -> None:
    square = helper.make_function(
        "mine", "Square", ["a"], ["b"], [helper.make_node("Mul", ["a", "a"], ["b"])],
        [helper.make_opsetid("", opset)],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("Square", ["x"], ["y"], domain="mine")], "g",
        [VALUE("x", TensorProto.FLOAT, [2])], [VALUE("y", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    path = tmp_path / "m.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=domains, functions=[square], ir_version=8), path
    )
    model = _check(path, np.float32([2, 3]))
    assert len(model.functions) == (1 if opset == 20 else 0)


def test_external_data_of_a_constant_node(tmp_path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(8))
    tensor = numpy_helper.from_array(np.float32([1, 2]), "k")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    nodes = [
        helper.make_node("Constant", [], ["k"], value=tensor, name="c"),
        helper.make_node("Add", ["x", "k"], ["y"]),
    ]
    with pytest.raises(ModelError, match=r"'c\.value' lies at '\.\./secret', outside"):
        import_source(str(_save(folder / "m.onnx", nodes, 20)), ImportOptions())


def _with_data(folder: Path) -> Path:
    path = _save(folder / "m.onnx", [helper.make_node("Add", ["x", "k"], ["y"])], 20,
                 k=np.arange(300, dtype=np.float32))  # fmt: skip
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def test_relative_paths_are_checked_too(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    _with_data(folder)
    monkeypatch.chdir(folder)
    x = np.ones(300, np.float32)
    model = import_source("m.onnx", ImportOptions()).model
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"][:3], [1, 2, 3])
    (folder / "w.bin").rename(tmp_path / "w.bin")
    (folder / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError, match=r"m\.onnx: its data file 'w\.bin' is a link to .*outside"):
        import_source("m.onnx", ImportOptions())


def test_hard_links_are_refused(tmp_path) -> None:
    """A hard link may be another user's file under a name of the archive."""
    path = _with_data(tmp_path)
    os.link(tmp_path / "w.bin", tmp_path / "other")
    with pytest.raises(ModelError, match="hard links; make a plain copy"):
        import_source(str(path), ImportOptions())


@pytest.mark.parametrize("key", ["offset", "length"])
def test_wrong_place_in_the_data_file(tmp_path, key) -> None:
    path = _with_data(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = "-8"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx"):
        import_source(str(path), ImportOptions())


def test_constant_with_too_few_bytes(tmp_path) -> None:
    path = _save(tmp_path / "m.onnx", [helper.make_node("Add", ["x", "k"], ["y"])], 20,
                 k=np.ones(4, np.float32))  # fmt: skip
    proto = onnx.load(path)
    proto.graph.initializer[0].dims[0] = 1 << 40
    onnx.save(proto, path)
    with pytest.raises(ModelError, match=r"'k' has 16 bytes, its shape needs 4398046511104"):
        import_source(str(path), ImportOptions())


@pytest.mark.parametrize("opset", [9, 20])
def test_every_damaged_file_gets_one_line(tmp_path, opset, capfd) -> None:
    """Some wrong bytes still parse; whatever they then break is an expected error."""
    path = _save(
        tmp_path / "m.onnx",
        [helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
         helper.make_node("Relu", ["c"], ["r"]),
         helper.make_node("GlobalAveragePool", ["r"], ["y"])],
        opset, w=R.normal(size=(4, 3, 3, 3)).astype(np.float32),
    )  # fmt: skip
    whole, generator, outcomes = path.read_bytes(), random.Random(opset), []
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content[: generator.choice([len(content), generator.randrange(1, 200)])])
        try:
            import_source(str(path), ImportOptions())
            outcomes.append("m.onnx: read")
        except InferError as error:
            outcomes.append(str(error))
    assert all("m.onnx: " in line and len(line.splitlines()) == 1 for line in outcomes)
    assert 5 < outcomes.count("m.onnx: read") < 145
    assert capfd.readouterr() == ("", "")


def test_what_is_no_file(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe: is not a regular file"):
        detect(str(tmp_path / "pipe"))
    with pytest.raises(UsageError, match="cannot be read: File name too long"):
        detect("a" * 5000)
    (tmp_path / "net.py").write_text("def make(): ...\n")
    with pytest.raises(ModelError, match=r"name its factory, .*net\.py:function"):
        detect(str(tmp_path / "net.py"))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError):
        detect(str(tmp_path / "loop"))


@pytest.mark.parametrize("version", [13, 20])
def test_declared_dimensions_of_outputs_stay(tmp_path, version) -> None:
    """Inference names what has no name; the interface of a file is not ours to change."""
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Relu", ["x"], ["y"])]
    sides = [VALUE("x", TensorProto.FLOAT, [None, 4])], [
        VALUE("y", TensorProto.FLOAT, [None, None]), VALUE("n", TensorProto.INT64, [2, None])
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "g", *sides)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)]), path)
    model = import_source(str(path), ImportOptions()).model
    y, n = model.graph.outputs
    assert [d.value if isinstance(d, ir.SymbolicDim) else d for d in (*y.shape, *n.shape)] == [
        None, None, 2, None,
    ]  # fmt: skip


def test_sequences_stay_sequences(tmp_path) -> None:
    """Shape inference gives the type of one tensor to a sequence without a declared type."""
    nodes = [
        helper.make_node("SplitToSequence", ["x", "two"], ["s"], axis=1),
        helper.make_node("Identity", ["s"], ["t"]),
        helper.make_node("SequenceAt", ["t", "one"], ["y"]),
    ]
    path = _save(tmp_path / "m.onnx", nodes, 20, 10, two=np.int64(2), one=np.int64(1))
    model = _check(path, R.normal(size=(3, 6)).astype(np.float32))
    kinds = {o.name: type(o.type) for n in model.graph for o in n.outputs}
    assert kinds == {"s": ir.SequenceType, "t": ir.SequenceType, "y": ir.TensorType}
