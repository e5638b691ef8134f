"""Importers on real files of many opsets and frameworks, and on files that are none."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from infer_runtime import Session
from infer_runtime.errors import MissingExtraError, ModelError, UsageError
from infer_tool.importers import ImportOptions, import_source
from infer_tool.importers.torch_inputs import parse_input

R = np.random.default_rng(2)


def _f(*shape: int) -> np.ndarray:
    return R.normal(size=shape).astype(np.float32)


def _model(path: Path, opset: int, nodes: list, shape: list, **constants: np.ndarray) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 7
    onnx.save(model, path)
    return path


def _check(path: Path, x: np.ndarray, tolerance: float = 1e-6) -> ir.Model:
    """Our import in our runtime and in ONNX Runtime equals ONNX Runtime on the original."""
    imported = import_source(str(path), ImportOptions())
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    wanted = ort.InferenceSession(path, options).run(None, {"x": x})[0]
    converted = ir.to_proto(imported.model).SerializeToString()
    for got in (
        Session(imported.model).run({"x": x})["y"],
        ort.InferenceSession(converted, options).run(None, {"x": x})[0],
        imported.reference({"x": x})["y"],
    ):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    assert imported.model.opset_imports[""] == max(20, onnx.load(path).opset_import[0].version)
    return imported.model


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 12, 13, 15, 17, 18, 20, 21])
def test_batchnorm_and_pooling(tmp_path, opset) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["y"]),
    ]
    v = np.abs(_f(4)) + 0.5
    path = _model(tmp_path / "m.onnx", opset, nodes, ["N", 3, 6, 6],
                  w=_f(4, 3, 3, 3), g=_f(4), b=_f(4), m=_f(4), v=v)  # fmt: skip
    model = _check(path, _f(2, 3, 6, 6), 1e-5)
    assert len({n.name for n in model.graph}) == len(nodes)


@pytest.mark.parametrize("opset", [7, 11, 12, 13, 17])
def test_attributes_that_became_inputs(tmp_path, opset) -> None:
    squeeze_input = opset >= 13
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["a"], axes=[2], keepdims=1),
        helper.make_node("Clip", ["a", "lo", "hi"] if opset >= 11 else ["a"], ["b"],
                         **({} if opset >= 11 else {"min": -0.5, "max": 0.5})),
        helper.make_node("Squeeze", ["b", "axes"] if squeeze_input else ["b"], ["c"],
                         **({} if squeeze_input else {"axes": [2]})),
        helper.make_node("Dropout", ["c"], ["d"], **({"ratio": 0.5} if opset < 12 else {})),
        helper.make_node("Softmax", ["d"], ["y"], axis=1),
    ]  # fmt: skip
    constants = {"lo": np.float32(-0.5), "hi": np.float32(0.5)} if opset >= 11 else {}
    if squeeze_input:
        constants["axes"] = np.array([2])
    _check(_model(tmp_path / "m.onnx", opset, nodes, ["N", 3, 5], **constants), _f(2, 3, 5))


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_upsampling(tmp_path, opset) -> None:
    scales = np.array([1, 1, 2, 2], np.float32)
    if opset == 9:
        node = helper.make_node("Upsample", ["x", "s"], ["y"], mode="nearest")
    else:
        node = helper.make_node("Resize", ["x", "roi", "s"], ["y"], mode="nearest")
    constants = {"s": scales} if opset == 9 else {"s": scales, "roi": np.zeros(0, np.float32)}
    _check(_model(tmp_path / "m.onnx", opset, [node], [1, 2, 3, 3], **constants), _f(1, 2, 3, 3))


@pytest.mark.parametrize("opset", [1, 6, 99])
def test_opsets_out_of_range(tmp_path, opset) -> None:
    path = tmp_path / "m.onnx"
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), path)
    with pytest.raises(ModelError, match=f"opset {opset} is not supported; expected 7 to 28"):
        import_source(str(path), ImportOptions())


def test_negative_dimensions_are_dynamic(tmp_path) -> None:
    path = _model(tmp_path / "m.onnx", 13, [helper.make_node("Relu", ["x"], ["y"])], [-1, 3])
    _check(path, _f(5, 3))


def test_unknown_operator_is_named(tmp_path) -> None:
    path = _model(tmp_path / "m.onnx", 20, [helper.make_node("Rellu", ["x"], ["y"], name="r")], [2])
    with pytest.raises(ModelError, match=r"no ONNX operator for Rellu \(1x\), first at node 'r'"):
        import_source(str(path), ImportOptions())


def _external(folder: Path, location: str, size: int = 16) -> Path:
    path = _model(folder / "m.onnx", 20, [helper.make_node("Add", ["x", "k"], ["y"])], [4], k=_f(4))
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path) -> None:
    data = np.arange(4, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(data.tobytes())
    imported = import_source(str(_external(tmp_path, "w.bin")), ImportOptions())
    x = np.ones(4, np.float32)
    np.testing.assert_array_equal(Session(imported.model).run({"x": x})["y"], x + data)


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin", "link.bin"]
)
def test_external_data_outside_the_folder_is_refused(tmp_path, location) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        import_source(str(_external(folder, location)), ImportOptions())


@pytest.mark.parametrize(("size", "message"), [(None, "missing"), (8, "ends before")])
def test_external_data_missing_or_short(tmp_path, size, message) -> None:
    if size is not None:
        (tmp_path / "w.bin").write_bytes(bytes(size))
    with pytest.raises(ModelError, match=message):
        import_source(str(_external(tmp_path, "w.bin")), ImportOptions())


def test_metadata_is_removed(tmp_path) -> None:
    path = _model(tmp_path / "m.onnx", 20, [helper.make_node("Relu", ["x"], ["y"])], [2])
    model = onnx.load(path)
    model.metadata_props.add(key="trained_by", value="/home/somebody/train.py")
    model.graph.node[0].doc_string = "/home/somebody/net.py:12"
    onnx.save(model, path)
    imported = import_source(str(path), ImportOptions()).model
    assert b"somebody" not in ir.to_proto(imported).SerializeToString()


class Net(torch.nn.Module):
    """Two inputs, two outputs, one of them shared with the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 3), torch.nn.Linear(2, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor):
        total = self.a(left) + self.b(right)
        return total, torch.relu(total)


def make_net() -> torch.nn.Module:
    """The factory that a user would name."""
    torch.manual_seed(3)
    return Net()


def _program(tmp_path: Path) -> Path:
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        make_net().eval(), (torch.randn(2, 4), torch.randn(2, 2)),
        dynamic_shapes={"left": {0: batch}, "right": {0: batch}},
    )  # fmt: skip
    torch.export.save(program, tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


def _check_net(imported) -> None:
    left, right = _f(5, 4), _f(5, 2)
    with torch.no_grad():
        wanted = make_net()(torch.from_numpy(left), torch.from_numpy(right))
    feeds = {"left": left, "right": right}
    names = [v.name for v in imported.model.graph.outputs]
    for got in (Session(imported.model).run(feeds), imported.reference(feeds)):
        for name, value in zip(names, wanted, strict=True):
            np.testing.assert_allclose(got[name], value.numpy(), rtol=0, atol=1e-6)
    assert [v.name for v in imported.model.graph.inputs] == ["left", "right"]
    assert not isinstance(imported.model.graph.inputs[0].shape[0], int)


def test_pt2(tmp_path, capfd) -> None:
    _check_net(import_source(str(_program(tmp_path)), ImportOptions()))
    assert capfd.readouterr().out == ""


def test_factory_in_a_file(tmp_path, capfd) -> None:
    options = ImportOptions(input=("left:batchx4", "right:batchx2:float32"))
    _check_net(import_source(f"{__file__}:make_net", options))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("source", "inputs", "message"),
    [
        (f"{__file__}:make_net", (), "state its inputs"),
        (f"{__file__}:make_nothing", ("x:1",), "no function 'make_nothing'"),
        ("no.such.module:f", ("x:1",), "cannot import"),
        (f"{__file__}:parse_input", ("x:1",), "the factory failed"),
        ("builtins:dict", ("x:1",), "expected a torch.nn.Module"),
        (f"{__file__}:make_net", ("left:2x",), "a dimension is empty"),
        (f"{__file__}:make_net", ("left:2x4:float33",), "no dtype"),
        (f"{__file__}:make_net", ("left",), "expected name:1x3x224x224:float32"),
    ],
)
def test_factories_that_do_not_work(source, inputs, message) -> None:
    with pytest.raises(UsageError, match=message):
        import_source(source, ImportOptions(input=inputs))


def test_wrong_input_shape_for_a_factory() -> None:
    with pytest.raises(ModelError, match="torch cannot export it"):
        import_source(f"{__file__}:make_net", ImportOptions(input=("left:2x5", "right:2x2")))


def test_input_specs() -> None:
    spec = parse_input("ids:batchx16:int64")
    assert (spec.name, spec.shape, spec.dtype) == ("ids", ("batch", 16), np.dtype(np.int64))


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pt2_with_a_payload_does_not_run_it(tmp_path) -> None:
    """A crafted archive: the sample inputs are a pickle that would create a file."""
    source, evil = _program(tmp_path), tmp_path / "evil.pt2"
    buffer = io.BytesIO()
    torch.save(_Payload(tmp_path / "ran"), buffer)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(evil, "w") as new:
        for item in old.infolist():
            replaced = "sample_inputs" in item.filename and item.filename.endswith(".pt")
            new.writestr(item, buffer.getvalue() if replaced else old.read(item))
    with pytest.raises(ModelError):
        import_source(str(evil), ImportOptions())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_modules_are_refused(tmp_path, legacy) -> None:
    path = tmp_path / "net.pt"
    torch.save(make_net().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match=r"torch\.export\.save"):
        import_source(str(path), ImportOptions())


def test_other_formats_are_named(tmp_path) -> None:
    contents = {
        "m.tflite": (b"\x1c\0\0\0TFL3" + bytes(64), "TFLite"),
        "m.h5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
        "m.bin": (pickle.dumps({"a": 1}), "pickle"),
        "m.zip": (b"PK\x05\x06" + bytes(18), "zip archive"),
    }
    for name, (content, word) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=word):
            import_source(str(tmp_path / name), ImportOptions())


def test_a_suffix_means_nothing(tmp_path) -> None:
    path = _model(tmp_path / "m.onnx", 20, [helper.make_node("Relu", ["x"], ["y"])], [2])
    renamed = path.rename(tmp_path / "m.pt2")
    assert import_source(str(renamed), ImportOptions()).kind == "onnx"


def test_without_torch_the_extra_is_named(tmp_path) -> None:
    source = _program(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from infer_tool.cli import main\n"
        f"sys.exit(main(['convert', {str(source)!r}, '-o', {str(tmp_path / 'o.onnx')!r}]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == MissingExtraError.exit_code
    assert "pip install 'infertool[torch]'" in result.stderr


class Flexible(torch.nn.Module):
    """An optional input between two others, and outputs with names."""

    def forward(self, a: torch.Tensor, b: torch.Tensor | None = None, c: torch.Tensor = None):
        total = a + c
        return {"total": total if b is None else total * b, "parts": {"first": a * 2}}


def make_flexible() -> torch.nn.Module:
    """The factory."""
    return Flexible()


def test_inputs_are_bound_by_name_and_outputs_keep_theirs() -> None:
    options = ImportOptions(input=("c:batchx3", "a:batchx3"))
    imported = import_source(f"{__file__}:make_flexible", options)
    feeds = {"a": _f(4, 3), "c": _f(4, 3)}
    for got in (Session(imported.model).run(feeds), imported.reference(feeds)):
        assert list(got) == ["total", "parts.first"]
        np.testing.assert_array_equal(got["total"], feeds["a"] + feeds["c"])
        np.testing.assert_array_equal(got["parts.first"], feeds["a"] * 2)
    assert {str(v.shape[0]) for v in imported.model.graph.inputs} == {"batch"}


def test_inputs_of_other_names_go_by_position() -> None:
    options = ImportOptions(input=("image:nx4", "scale:nx2"))
    model = import_source(f"{__file__}:make_net", options).model
    assert [(v.name, str(v.shape[0])) for v in model.graph.inputs] == [
        ("image", "n"),
        ("scale", "n"),
    ]
    assert [str(v.shape[0]) for v in model.graph.outputs] == ["n", "n"]


def test_one_wrong_input_name() -> None:
    with pytest.raises(UsageError, match=r"--input lift: .* takes left, right"):
        import_source(f"{__file__}:make_net", ImportOptions(input=("lift:2x4", "right:2x2")))


class Types(torch.nn.Module):
    """Integer, boolean, scalar and half-precision inputs."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, k: torch.Tensor, h: torch.Tensor):
        return torch.where(mask, ids.to(torch.float32) * k, h.to(torch.float32))


def make_types() -> torch.nn.Module:
    """The factory."""
    return Types()


def test_inputs_of_other_types() -> None:
    inputs = ("ids:3:int64", "mask:3:bool", "k:", "h:3:float16")
    imported = import_source(f"{__file__}:make_types", ImportOptions(input=inputs))
    feeds = {
        "ids": np.array([1, 2, 3]), "mask": np.array([True, False, True]),
        "k": np.array(0.5, np.float32), "h": np.array([7, 8, 9], np.float16),
    }  # fmt: skip
    for run in (Session(imported.model).run, imported.reference):
        (got,) = run(feeds).values()
        np.testing.assert_array_equal(got, np.float32([0.5, 8, 1.5]))


@pytest.mark.parametrize("dtype", ["str", "complex64", "datetime64"])
def test_types_that_no_tensor_has(dtype) -> None:
    with pytest.raises(UsageError, match="dtype"):
        parse_input(f"x:2:{dtype}")


def test_nothing_local_in_what_torch_exports(tmp_path) -> None:
    """torch writes a stack trace with paths into every node."""
    model = import_source(str(_program(tmp_path)), ImportOptions()).model
    content = ir.to_proto(model).SerializeToString()
    assert __file__.encode() not in content
    assert b"stack_trace" not in content


def test_damaged_programs(tmp_path) -> None:
    source = _program(tmp_path)
    whole = source.read_bytes()
    for size in (10, 300, len(whole) // 2, len(whole) - 30):
        source.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"net\.pt2: "):
            import_source(str(source), ImportOptions())


def test_a_program_that_onnx_cannot_express(tmp_path) -> None:
    class Svd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x)

    torch.export.save(torch.export.export(Svd(), (torch.eye(3),)), tmp_path / "svd.pt2")
    with pytest.raises(ModelError, match=r"svd\.pt2: torch cannot convert it") as caught:
        import_source(str(tmp_path / "svd.pt2"), ImportOptions())
    assert "\n" not in str(caught.value)
    assert "eig" in str(caught.value)
