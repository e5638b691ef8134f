"""What PyTorch users hold: TorchScript, state dicts, quantised, half and recurrent modules."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.errors import LimitError, ModelError, UsageError
from infer_tool.importers import Imported, ImportOptions, import_source
from infer_tool.importers.memory import check_memory
from passes.compare import compare_outputs

torch = pytest.importorskip("torch")
nn = torch.nn
here = pytest.mark.usefixtures("here")
DEPRECATED = "torch.jit.script"
R = np.random.default_rng(6)


def _f(*shape: int) -> np.ndarray:
    return R.normal(size=shape).astype(np.float32)


def _check(imported: Imported, *feeds: dict, limit: float = 1e-5) -> ir.Model:
    """Our runtime and the source framework, on each of the feeds."""
    session = Session(imported.model)
    for feed in feeds:
        found = compare_outputs(imported.reference(feed), session.run(feed))
        assert max(d.max_rel for d in found.values()) <= limit
    return imported.model


class Branches(nn.Module):
    """A branch on the data, as TorchScript has it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 0):
            return self.linear(x)
        return x * 2


class Stateful(nn.Module):
    """A wrapper that keeps what it has seen, around a part that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Linear(4, 3)
        self.seen = torch.zeros(0)

    def forward(self, x: torch.Tensor, rate: int) -> torch.Tensor:
        if rate != 8:
            raise ValueError("rate must be 8")
        if not len(self.seen):
            self.seen = torch.zeros(x.shape[0], 4)
        self.seen = self.seen + x
        return self.core(self.seen)


def _net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.PReLU(3), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    ).eval()


def _script(path: Path, module: nn.Module) -> str:
    with pytest.warns(DeprecationWarning, match=DEPRECATED):
        torch.jit.script(module).save(str(path))
    return str(path)


def test_scripted_network_keeps_its_dynamic_dimensions(tmp_path, capfd) -> None:
    source = _script(tmp_path / "net.pt", _net())
    imported = import_source(source, ImportOptions(input=("image:batchx2x8x8",)))
    model = _check(imported, {"image": _f(1, 2, 8, 8)}, {"image": _f(5, 2, 8, 8)})
    assert imported.route == "TorchScript to ExportedProgram"
    assert [str(d) for d in model.graph.inputs[0].shape] == ["batch", "2", "8", "8"]
    assert capfd.readouterr() == ("", "")


@here
def test_a_branch_on_the_data_is_not_lost(tmp_path) -> None:
    """Tracing would keep one side of it."""
    source = _script(tmp_path / "net.pt", Branches().eval())
    imported = import_source(source, ImportOptions(input=("x:nx4",)))
    _check(imported, {"x": np.ones((2, 4), np.float32)}, {"x": -np.ones((3, 4), np.float32)})
    assert {node.op_type for node in imported.model.graph} >= {"If"}


@here
def test_a_stateful_wrapper_needs_its_part_named(tmp_path) -> None:
    source = _script(tmp_path / "net.pt", Stateful().eval())
    with pytest.raises(
        UsageError, match=r"does not run .*rate: int; its parts for --submodule are core"
    ):
        import_source(source, ImportOptions(input=("x:2x4", "rate::int64")))
    with pytest.raises(UsageError, match=r"--submodule cor: .*net\.pt has core"):
        import_source(source, ImportOptions(input=("x:2x4",), submodule="cor"))
    imported = import_source(source, ImportOptions(input=("x:nx4",), submodule="core"))
    _check(imported, {"x": _f(2, 4)}, {"x": _f(1, 4)})


@here
def test_torchscript_does_not_say_its_inputs(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"net\.pt: state its inputs with --input"):
        import_source(_script(tmp_path / "net.pt", _net()), ImportOptions())


@here
@pytest.mark.parametrize(
    "statement", ["torch.save(x, {name!r})", "torch.from_file({name!r}, True, 4)"]
)
def test_torchscript_that_touches_files_is_not_loaded(tmp_path, statement) -> None:
    """Both are operators of TorchScript; the second creates the file when the module runs."""
    source, marker = Path(_script(tmp_path / "net.pt", nn.ReLU())), tmp_path / "ran"
    evil = tmp_path / "evil.pt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(evil, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith("activation.py"):
                head, _, tail = content.partition(b"return")
                content = (
                    head + statement.format(name=str(marker)).encode() + b"\n    return" + tail
                )
            new.writestr(item, content)
    with pytest.raises(
        ModelError, match=r"evil\.pt: .*activation\.py, line \d+ names '(save|from_file)'"
    ):
        import_source(str(evil), ImportOptions(input=("x:2",)))
    assert not marker.exists()


def make_net() -> nn.Module:
    """The factory, with weights that the tests replace."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def _weights() -> dict:
    generator = torch.Generator().manual_seed(8)
    return {
        k: torch.randn(v.shape, generator=generator) for k, v in make_net().state_dict().items()
    }


def _safetensors(path: Path, tensors: dict) -> Path:
    """Written by hand: length, header, data."""
    import json

    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().view(torch.uint8).numpy().tobytes()
        kind = {torch.float32: "F32", torch.bfloat16: "BF16"}[tensor.dtype]
        header[name] = {
            "dtype": kind,
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@here
@pytest.mark.parametrize("kind", ["pt", "wrapped", "bfloat16"])
def test_state_dicts(tmp_path, kind) -> None:
    weights, path = _weights(), tmp_path / "weights.bin"
    if kind == "bfloat16":
        weights = {k: v.to(torch.bfloat16) for k, v in weights.items()}
        _safetensors(path, weights)
    else:
        torch.save({"state_dict": weights} if kind == "wrapped" else weights, path)
    imported = import_source(
        f"{__file__}:make_net", ImportOptions(input=("x:nx4",), state_dict=path)
    )
    x = _f(3, 4)
    net = make_net()
    net.load_state_dict(weights)
    with torch.no_grad():
        wanted = net(torch.from_numpy(x)).numpy()
    (got,) = Session(imported.model).run({"x": x}).values()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@here
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda w: {k: v for k, v in w.items() if k != "0.bias"}, r"lacks 0\.bias"),
        (lambda w: w | {"3.bias": torch.ones(1)}, r"has 3\.bias too many"),
        (lambda w: w | {"0.bias": torch.ones(3)}, r"size mismatch for 0\.bias"),
        (lambda _: [1, 2], "holds list, not a state dict"),
    ],
)
def test_state_dicts_that_do_not_fit(tmp_path, content, message) -> None:
    path = tmp_path / "w.pt"
    torch.save(content(_weights()), path)
    with pytest.raises(ModelError, match=rf"--state-dict .*w\.pt: .*{message}"):
        import_source(f"{__file__}:make_net", ImportOptions(input=("x:nx4",), state_dict=path))


@pytest.mark.parametrize("zipped", [True, False])
def test_the_payload_of_a_state_dict_does_not_run(tmp_path, zipped) -> None:
    path = tmp_path / "w.pt"
    weights = _weights() | {"0.bias": _Payload(tmp_path / "ran")}
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    options = ImportOptions(input=("x:nx4",), state_dict=path)
    with pytest.raises(ModelError, match=r"other objects.*torch\.save"):
        import_source(f"{__file__}:make_net", options)
    with pytest.raises(ModelError, match=r"--state-dict|torch\.export\.save"):
        import_source(str(path), ImportOptions())
    assert not (tmp_path / "ran").exists()


@here
def test_no_state_dict_there(tmp_path) -> None:
    options = ImportOptions(input=("x:nx4",), state_dict=tmp_path / "none.pt")
    with pytest.raises(UsageError, match=r"none\.pt: no such file"):
        import_source(f"{__file__}:make_net", options)
    (tmp_path / "none.pt").write_bytes(b"text")
    with pytest.raises(ModelError, match="neither safetensors nor"):
        import_source(f"{__file__}:make_net", options)


@here
def test_safetensors_alone_are_a_state_dict(tmp_path) -> None:
    path = _safetensors(tmp_path / "model.safetensors", _weights())
    with pytest.raises(
        ModelError, match=r"a state dict without its module.*file\.py:factory --state-dict"
    ):
        import_source(str(path), ImportOptions())


def make_recurrent() -> nn.Module:
    """Two directions, an explicit state, outputs with names."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, 5, bidirectional=True, batch_first=True)

        def forward(self, x, state):
            y, last = self.gru(x, state)
            return {"steps": y, "last": last}

    torch.manual_seed(2)
    return Net()


@here
def test_recurrent_layers_of_any_length() -> None:
    options = ImportOptions(input=("state:2xbatchx5", "x:batchxlengthx3"))
    imported = import_source(f"{__file__}:make_recurrent", options)
    feeds = [{"x": _f(b, t, 3), "state": _f(2, b, 5)} for b, t in ((1, 7), (3, 1))]
    model = _check(imported, *feeds)
    assert "GRU" in {node.op_type for node in model.graph}
    assert [v.name for v in model.graph.inputs] == ["state", "x"]
    assert [v.name for v in model.graph.outputs] == ["steps", "last"]
    assert [str(d) for d in model.graph.inputs[1].shape] == ["batch", "length", "3"]


def make_prepared() -> nn.Module:
    """After quantisation-aware training; per-channel weights of 8 bits, activations of 7."""
    from torch.ao import quantization as ao

    torch.manual_seed(0)
    net = nn.Sequential(
        ao.QuantStub(), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    net.qconfig = ao.get_default_qat_qconfig("x86")
    prepared = ao.prepare_qat(net.train())
    for _ in range(3):
        prepared(torch.randn(4, 2, 6, 6))
    return prepared.eval()


@here
def test_fake_quantised_modules_become_qdq() -> None:
    imported = import_source(f"{__file__}:make_prepared", ImportOptions(input=("x:nx2x6x6",)))
    model = _check(imported, {"x": 3 * _f(4, 2, 6, 6)}, limit=1e-6)
    ops = [node.op_type for node in model.graph]
    assert ops.count("QuantizeLinear") == ops.count("DequantizeLinear") == 5
    scales = [n.inputs[1].shape for n in model.graph if n.op_type == "DequantizeLinear"]
    assert {len(s) for s in scales} == {0, 1}


@here
def test_a_quantised_program_becomes_qdq(tmp_path) -> None:
    """What PT2E leaves: operators of quantized_decomposed around float ones, weights in int8."""
    import torch.ao.quantization.fx._decomposed  # registers them

    ops = torch.ops.quantized_decomposed

    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("w", torch.randint(-127, 128, (3, 4), dtype=torch.int8))
            self.register_buffer("s", torch.tensor([0.01, 0.02, 0.03]))
            self.register_buffer("z", torch.zeros(3, dtype=torch.int64))

        def forward(self, x):
            how = (0.02, 3, -128, 127, torch.int8)
            x = ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *how), *how)
            w = ops.dequantize_per_channel(self.w, self.s, self.z, 0, -127, 127, torch.int8)
            return nn.functional.linear(x, w)

    torch.manual_seed(3)
    torch.export.save(torch.export.export(Quantised(), (torch.ones(2, 4),)), tmp_path / "q.pt2")
    model = _check(import_source(str(tmp_path / "q.pt2"), ImportOptions()), {"x": _f(2, 4)})
    assert {"QuantizeLinear", "DequantizeLinear"} <= {n.op_type for n in model.graph}
    assert [v.const_value.dtype for v in model.graph.initializers.values()].count(
        ir.DataType.INT8
    ) >= 1


def make_bfloat16() -> nn.Module:
    """Weights that engines on processors do not compute with."""
    torch.manual_seed(4)
    return make_net().to(torch.bfloat16)


def make_float16() -> nn.Module:
    """Weights in half precision."""
    torch.manual_seed(4)
    return make_net().half()


@here
def test_half_weights_compute_in_float32() -> None:
    imported = import_source(f"{__file__}:make_bfloat16", ImportOptions(input=("x:nx4",)))
    _check(imported, {"x": _f(2, 4)})
    assert imported.route == "torch.export, bfloat16 weights widened to float32"
    types = {v.const_value.dtype for v in imported.model.graph.initializers.values()}
    assert types == {ir.DataType.FLOAT}


@here
def test_float16_stays_where_an_input_asks_for_it() -> None:
    imported = import_source(f"{__file__}:make_float16", ImportOptions(input=("x:nx4:float16",)))
    x = _f(2, 4).astype(np.float16)
    assert imported.reference({"x": x})["linear_1"].dtype == np.float16
    _check(imported, {"x": x}, limit=2e-3)


@here
def test_half_weights_of_torchscript(tmp_path) -> None:
    source = _script(tmp_path / "net.pt", make_float16().eval())
    imported = import_source(source, ImportOptions(input=("x:nx4",)))
    _check(imported, {"x": _f(2, 4)})
    assert imported.route.endswith(", float16 weights widened to float32")
    imported = import_source(source, ImportOptions(input=("x:nx4:float16",)))
    _check(imported, {"x": _f(2, 4).astype(np.float16)}, limit=2e-3)


def make_unwritable() -> nn.Module:
    """Two operators that ONNX has not, one of them twice."""

    class Net(nn.Module):
        def forward(self, x):
            y = torch.linalg.eigvals(x).real
            return torch.linalg.eigvals(x + 1).real + y + torch.special.airy_ai(x).sum()

    return Net()


@here
def test_operators_that_onnx_has_not_are_counted_and_located() -> None:
    expected = (
        r"no ONNX operator for aten\.linalg_eig \(2x\), aten\.special_airy_ai \(1x\), first at "
        r".*test_torch_sources\.py:\d+; .*--submodule"
    )
    with pytest.raises(ModelError, match=expected) as caught:
        import_source(f"{__file__}:make_unwritable", ImportOptions(input=("x:3x3",)))
    assert "\n" not in str(caught.value)


def make_square() -> nn.Module:
    """Only its example's width fits."""
    return nn.Linear(16, 2)


@here
def test_a_dimension_that_is_not_free() -> None:
    with pytest.raises(ModelError, match=r"mat1 and mat2|state that dimension as a number"):
        import_source(f"{__file__}:make_square", ImportOptions(input=("x:nxwidth",)))


@here
def test_a_submodule_of_a_factory() -> None:
    options = ImportOptions(input=("x:nx4",), submodule="0")
    assert len(import_source(f"{__file__}:make_net", options).model.graph) == 1
    options = ImportOptions(input=("x:nx4",), submodule="head")
    with pytest.raises(UsageError, match=r"--submodule head: .* has 0, 1, 2"):
        import_source(f"{__file__}:make_net", options)


def make_end() -> nn.Module:
    """Code that ends its process."""
    import os

    os._exit(3)


def test_a_crash_of_the_framework_is_an_error_of_the_model() -> None:
    with pytest.raises(ModelError, match="crashed: it ended with status 3"):
        import_source(f"{__file__}:make_end", ImportOptions(input=("x:nx4",)))


def test_too_large_for_this_machine() -> None:
    with pytest.raises(LimitError, match=r"^net\.pt2: 9000\.0 GB of weights take about 27000 GB"):
        check_memory("net.pt2", 9_000_000_000_000)
    check_memory("net.pt2", 1_000_000)


def test_torch_stays_out_of_this_process(tmp_path) -> None:
    torch.export.save(torch.export.export(_net(), (torch.ones(2, 2, 8, 8),)), tmp_path / "n.pt2")
    code = (
        "import sys; from infer_tool.importers import import_source, ImportOptions\n"
        f"import_source({str(tmp_path / 'n.pt2')!r}, ImportOptions()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@here
def test_names_of_dimensions_for_a_program(tmp_path) -> None:
    """The file keeps symbols, not their names."""
    n = torch.export.Dim("n")
    program = torch.export.export(make_net(), (torch.ones(2, 4),), dynamic_shapes=({0: n},))
    torch.export.save(program, tmp_path / "n.pt2")
    options = ImportOptions(input=("input:batchx4",))
    model = import_source(str(tmp_path / "n.pt2"), options).model
    assert [str(v.shape[0]) for v in (*model.graph.inputs, *model.graph.outputs)] == ["batch"] * 2
    with pytest.raises(UsageError, match=r"--input input: .*x4"):
        import_source(str(tmp_path / "n.pt2"), ImportOptions(input=("input:batchx5",)))
