"""ONNX in other clothes: text, links, newer opsets, many data, damaged in hundreds of ways."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from infer_runtime import Session
from infer_runtime.errors import InferError, ModelError, UnsupportedOpError
from infer_tool.importers import ImportOptions, import_source

TEXT = """# a comment first
<ir_version: 9, opset_import: ["": 18]>
net (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> {
    h = MatMul(x, w)
    y = Relu(h)
}
"""
LINKS = ImportOptions(follow_links=True)


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_text(tmp_path) -> None:
    imported = import_source(str(_text(tmp_path / "net.any", TEXT)), ImportOptions())
    x = np.float32([[1, -1, 2], [-3, 0, 1]])
    wanted = np.maximum(x @ np.float32([[1, 2], [3, 4], [5, 6]]), 0)
    for run in (Session(imported.model).run, imported.reference):
        np.testing.assert_array_equal(run({"x": x})["y"], wanted)
    assert (imported.kind, imported.opset) == ("onnx_text", 18)
    assert [str(d) for d in imported.model.graph.inputs[0].shape] == ["N", "3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("MatMul(x, w)", "MatMul(x w)"), "is no valid ONNX text"),
        (("Relu", "Rellu"), r"Rellu"),
        (("Relu(h)", "Relu(none)"), "none"),
        (("18", "99"), "opset 99 is not supported; expected 7 to 28"),
        (
            ("float[3,2] w = {1, 2, 3, 4, 5, 6}", 'float[3,2] w = ["location": "../w"]'),
            "outside|missing",
        ),
    ],
)
def test_wrong_text(tmp_path, change, message) -> None:
    path = _text(tmp_path / "net.onnxtxt", TEXT.replace(*change))
    with pytest.raises(ModelError, match=message) as caught:
        import_source(str(path), ImportOptions())
    assert "\n" not in str(caught.value)
    assert "net.onnxtxt" in str(caught.value)


def test_the_format_of_onnx_runtime_is_refused_by_name(tmp_path) -> None:
    proto = onnx.parser.parse_model(TEXT.partition("\n")[2])
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "m.bin")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(proto.SerializeToString(), options)
    with pytest.raises(ModelError, match=r"m\.bin: is in the format of ONNX Runtime .*\.onnx file"):
        import_source(str(tmp_path / "m.bin"), ImportOptions())


def _newer(version: int, body: str, inputs: str = "float[2] x", output: str = "float[2] y") -> str:
    return (
        f'<ir_version: 13, opset_import: ["": {version}]> g ({inputs}) => ({output}) {{ {body} }}'
    )


FITTING = {
    "plain": ("y = Relu(x)", "float[2] x", "float[2] y"),
    "revised types": ("c = Cast<to=7>(x) y = Cast<to=1>(c)", "float[2] x", "float[2] y"),
    "default attribute": ('y = SpaceToDepth<blocksize=2, mode="DCR">(x)', "float[1,1,2,2] x", "float[1,4,1,1] y"),
    "integer Mod": ("y = Mod(x, x)", "int64[2] x", "int64[2] y"),
    "fmod": ("y = Mod<fmod=1>(x, x)", "float[2] x", "float[2] y"),
    "in a branch": ("y = If(c) <then_branch = a () => (float[2] t) { t = Celu(x) }, else_branch = b () => (float[2] e) { e = Neg(x) }>",
                    "float[2] x, bool c", "float[2] y"),
}  # fmt: skip
NEEDING = {
    "SwiGLU": ("a = Concat<axis=0>(x, x) y = SwiGLU(x)", "float[2] x", "float[1] y"),
    "Mod": ("y = Mod(x, x)", "float[2] x", "float[2] y"),
    "SpaceToDepth": ('y = SpaceToDepth<blocksize=2, mode="CRD">(x)', "float[1,1,2,2] x", "float[1,4,1,1] y"),
    "Celu": ("c = Cast<to=11>(x) d = Celu(c) y = Cast<to=1>(d)", "float[2] x", "float[2] y"),
    "BitShift": ('c = Cast<to=7>(x) d = BitShift<direction="LEFT">(c, c) y = Cast<to=1>(d)', "float[2] x", "float[2] y"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "version"), [*((name, 28) for name in FITTING), ("plain", 27), ("in a branch", 27)]
)
def test_a_newer_opset_than_engines_read_goes_down(tmp_path, name, version) -> None:
    path = _text(tmp_path / "m.onnxtxt", _newer(version, *FITTING[name]))
    imported = import_source(str(path), ImportOptions())
    assert imported.model.opset_imports[""] == 26
    ort.InferenceSession(ir.to_proto(imported.model).SerializeToString())
    assert imported.opset == version


@pytest.mark.parametrize("name", NEEDING)
def test_what_needs_the_newer_opset_is_named(tmp_path, name) -> None:
    path = _text(tmp_path / "m.onnxtxt", _newer(28, *NEEDING[name]))
    with pytest.raises(
        UnsupportedOpError, match=rf"opset 28: {name} \(1x\) cannot be written in opset 26"
    ):
        import_source(str(path), ImportOptions())


def _external(path: Path, count: int = 1, location: str = "w.bin") -> Path:
    nodes, tensors = [], []
    for i in range(count):
        tensor = TensorProto(
            name=f"w{i}", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL
        )
        for key, value in (("location", location), ("offset", str(16 * i)), ("length", "16")):
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
        nodes.append(helper.make_node("Add", [f"h{i}" if i else "x", f"w{i}"], [f"h{i + 1}"]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [4])],
        [helper.make_tensor_value_info(f"h{count}", 1, [4])], tensors,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    )
    return path


def test_a_snapshot_of_links(tmp_path) -> None:
    """As the cache of Hugging Face keeps it: model and data are links to blobs of other names."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    _external(blobs / "aaaa")
    (blobs / "bbbb").write_bytes(np.float32([1, 2, 3, 4]).tobytes())
    (snapshot / "model.onnx").symlink_to("../../blobs/aaaa")
    (snapshot / "w.bin").symlink_to("../../blobs/bbbb")
    source = str(snapshot / "model.onnx")
    with pytest.raises(ModelError, match=r"'w\.bin' is a link to .*bbbb, outside .*--follow-links"):
        import_source(source, ImportOptions())
    imported = import_source(source, LINKS)
    for run in (Session(imported.model).run, imported.reference):
        np.testing.assert_array_equal(run({"x": np.ones(4, np.float32)})["h1"], [2, 3, 4, 5])


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "sub/link/../../../secret"])
def test_links_do_not_open_other_ways_out(tmp_path, location) -> None:
    folder = tmp_path / "model"
    (folder / "sub" / "link").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(16))
    path = _external(folder / "m.onnx", location=location)
    with pytest.raises(ModelError, match="outside the model's folder"):
        import_source(str(path), LINKS)


def test_more_external_constants_than_open_files(tmp_path) -> None:
    count = 600
    (tmp_path / "w.bin").write_bytes(np.ones(4 * count, np.float32).tobytes())
    path = _external(tmp_path / "m.onnx", count)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        x = {"x": np.zeros(4, np.float32)}
        for model in (import_source(str(path), ImportOptions()).model, path):
            assert Session(model).run(x)[f"h{count}"].tolist() == [count] * 4
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _real_model(path: Path) -> Path:
    """Attributes, a subgraph, constants of several kinds."""
    rng = np.random.default_rng(3)
    branch = [
        helper.make_graph(
            [helper.make_node(op, ["r"], [f"b_{op}"], name=op)], op, [],
            [helper.make_tensor_value_info(f"b_{op}", 1, None)],
        ) for op in ("Neg", "Abs")
    ]  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4, name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node(
            "If", ["go"], ["i"], name="if", then_branch=branch[0], else_branch=branch[1]
        ),
        helper.make_node("Reshape", ["i", "shape"], ["y"], name="reshape"),
    ]
    constants = {"w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "go": np.array(True),
                 "shape": np.array([1, -1])}  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [1, 3, 5, 5])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_five_hundred_mutations(tmp_path, capfd) -> None:
    """Flipped bits, holes, doubled and missing pieces: one line each, or a model."""
    path = _real_model(tmp_path / "m.onnx")
    whole, generator, outcomes, statuses = path.read_bytes(), random.Random(1), [], set()
    for number in range(520):
        path.write_bytes(mutated(whole, generator, number))
        try:
            import_source(str(path), ImportOptions())
            outcomes.append("m.onnx: read")
        except InferError as error:
            outcomes.append(str(error))
            statuses.add(error.exit_code)
    assert all("m.onnx: " in line and len(line.splitlines()) == 1 for line in outcomes)
    assert statuses <= {2, 3}
    assert 20 < outcomes.count("m.onnx: read") < 500
    assert capfd.readouterr() == ("", "")


def mutated(whole: bytes, generator: random.Random, number: int) -> bytes:
    """One of five kinds of damage."""
    content = bytearray(whole)
    at = generator.randrange(len(content))
    if number % 5 == 0:
        del content[at:]
    elif number % 5 == 1:
        del content[at : at + generator.randint(1, 20)]
    elif number % 5 == 2:
        content[at:at] = content[: generator.randint(1, 40)]
    elif number % 5 == 3:
        content[at] ^= 1 << generator.randrange(8)
    else:
        for _ in range(4):
            content[generator.randrange(len(content))] = generator.randrange(256)
    return bytes(content)
