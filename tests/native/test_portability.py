"""Emitted C on processors that this machine is not, under an emulator, and under sanitizers.

`zig cc` builds for the others, qemu-user (a Debian package) or Node runs the example; what is
missing is skipped by its name.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
from binary_calls import Call, convolution, model_of_calls
from networks import binary_chain, convolutions, integer_network, sloped_network

from infer_native import emit_model
from infer_native.build import FLAGS, WARNINGS, find_compiler, write_sources
from infer_native.isa import find_isa, runs_here
from infer_native.project import example
from infer_native.targets import TARGETS
from infer_runtime import Session

if TYPE_CHECKING:
    from infer_native.emit import Emitted

SAMPLES = Path(__file__).parents[2] / "sample_models"
RUNNERS = {
    "aarch64-linux": "qemu-aarch64", "armv7-linux": "qemu-arm", "riscv64-linux": "qemu-riscv64",
    "wasm32-wasi": "node",
}  # fmt: skip
WASI = """
const { readFileSync } = require('node:fs');
const { WASI } = require('node:wasi');
const wasi = new WASI({ version: 'preview1', args: process.argv.slice(2), preopens: { '.': '.' } });
WebAssembly.instantiate(readFileSync(process.argv[2]), wasi.getImportObject())
  .then((made) => process.exit(wasi.start(made.instance)));
"""


def _models() -> dict[str, tuple[ir.Model, dict[str, Any]]]:
    rng = np.random.default_rng(8)
    with np.load(SAMPLES / "digits.npz") as arrays:
        digit = {"image": arrays["image"][:1]}
    bits = {"x": rng.normal(size=(2, 24, 7, 6)).astype(np.float32)}
    rows = rng.normal(size=(3, 100)).astype(np.float32)
    calls = {
        "a": convolution("BinaryConv", "many channels", 1),
        "b": Call("XnorGemm", rows, (37, 100), {}),
        "c": Call("TernaryGemm", rows, (37, 100), {}),
    }
    picture = {"x": rng.normal(0, 2, (2, 3, 19, 17)).astype(np.float32)}
    return {
        "digits": (ir.load(SAMPLES / "digits_cnn.onnx"), digit),
        "int8": (integer_network(), picture),
        "int8 lines": (sloped_network(), picture),
        "binary": (binary_chain(), bits),
        "packed": (model_of_calls(calls), {f"x{n}": call.x for n, call in calls.items()}),
    }


def _written(emitted: Emitted, feeds: dict[str, Any], folder: Path) -> list[str]:
    """The sources and the inputs in `folder`; the arguments of the example."""
    write_sources(emitted, folder)
    (folder / "main.c").write_text(example(emitted))
    names = []
    for number, port in enumerate(emitted.inputs):
        names.append(f"{number}.npy")
        np.save(folder / names[-1], feeds[port.name])
    return ["model.weights", *names]


def _check(printed: str, model: ir.Model, feeds: dict[str, Any], kind: str) -> None:
    """Against the reference runtime; integer networks to the bit, against ONNX Runtime.

    Binary networks are the reference's to the bit.
    """
    got = np.array(printed.split(), np.float64)
    if "int8" in kind:
        import onnxruntime as ort

        session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
        wanted = np.concatenate([y.reshape(-1) for y in session.run(None, feeds)])
        assert np.array_equal(got.astype(np.float32), wanted)
    else:
        values = Session(model).run(feeds).values()
        wanted = np.concatenate([y.reshape(-1) for y in values])
        atol = 0 if kind == "binary" else 3e-6 * float(np.abs(wanted).max())
        got = got.astype(np.float32) if kind == "binary" else got
        np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("name", "isa"),
    [*((name, TARGETS[name].isa) for name in RUNNERS), ("aarch64-linux", "dotprod")],
)
def test_another_processor_computes_the_same(tmp_path: Path, name: str, isa: str) -> None:
    runner = shutil.which(RUNNERS[name])
    if runner is None or importlib.util.find_spec("ziglang") is None:
        pytest.skip(f"{RUNNERS[name]} or ziglang is not here")
    if isa == "scalar" and "wasm" not in name and not os.environ.get("INFERTOOL_EVERY_PROCESSOR"):
        pytest.skip(
            "zig builds a libc first: set INFERTOOL_EVERY_PROCESSOR for scalar code elsewhere"
        )
    target = TARGETS[name]
    for kind, (model, feeds) in _models().items():
        shapes = {n: v.shape for n, v in feeds.items()}
        emitted = emit_model(model, shapes, isa)
        arguments = _written(emitted, feeds, tmp_path)
        program = "example.wasm" if "wasm" in name else "example"
        flags = ["-O1", "-target", target.triple, *([] if "wasm" in name else ["-static"])]
        subprocess.run(
            [*find_compiler("zig").command, *FLAGS, *WARNINGS, *emitted.isa.flags, *flags,
             "main.c", "model.c", "-lm", "-o", program],
            cwd=tmp_path, check=True,
        )  # fmt: skip
        command = [runner, program, *arguments]
        if "wasm" in name:
            (tmp_path / "run.js").write_text(WASI)
            command = [runner, "--no-warnings", "run.js", program, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        _check(done.stdout, model, feeds, kind)


@pytest.mark.parametrize("isa", ["scalar", "avx512"])
def test_sanitizers_find_nothing(tmp_path: Path, isa: str) -> None:
    """No byte beyond the arena, the weights or the outputs, and nothing undefined."""
    gcc = shutil.which("gcc")
    if gcc is None or not runs_here(find_isa(isa)):
        pytest.skip(f"gcc or {isa} is not here")
    proto, rng = convolutions(), np.random.default_rng(9)
    sizes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in proto.graph.input}
    drawn = {n: rng.normal(size=size).astype(np.float32) for n, size in sizes.items()}
    models = {**_models(), "convolutions": (ir.from_proto(proto), drawn)}
    for kind, (model, feeds) in models.items():
        emitted = emit_model(model, {n: v.shape for n, v in feeds.items()}, isa)
        arguments = _written(emitted, feeds, tmp_path)
        flags = [f for f in FLAGS if not f.startswith("-O")]
        built = subprocess.run(
            [gcc, *flags, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
             *emitted.isa.flags, "main.c", "model.c", "-lm", "-o", "example"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "libasan" in built.stderr:
            pytest.skip("gcc has no sanitizers here")
        assert built.returncode == 0, built.stderr
        done = subprocess.run(
            ["./example", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={"ASAN_OPTIONS": "detect_leaks=0"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        _check(done.stdout, model, feeds, kind)


def test_valgrind_finds_nothing(tmp_path: Path) -> None:
    """No jump or output depends on memory that nobody filled: weights, arena and inputs are."""
    gcc, valgrind = shutil.which("gcc"), shutil.which("valgrind")
    if gcc is None or valgrind is None or not runs_here(find_isa("sse")):
        pytest.skip("valgrind, gcc or sse is not here")
    for kind, (model, feeds) in _models().items():
        emitted = emit_model(model, {n: v.shape for n, v in feeds.items()}, "sse")
        arguments = _written(emitted, feeds, tmp_path)
        subprocess.run(
            [gcc, *FLAGS, "-O1", "-g", *emitted.isa.flags, "main.c", "model.c", "-lm",
             "-o", "example"],
            cwd=tmp_path, check=True,
        )  # fmt: skip
        done = subprocess.run(
            [valgrind, "-q", "--error-exitcode=9", "./example", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        _check(done.stdout, model, feeds, kind)
