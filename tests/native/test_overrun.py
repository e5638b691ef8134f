"""Nothing is written outside what the caller gave: bytes around every buffer stay as they were."""

from __future__ import annotations

import ctypes
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
from networks import Network, convolutions, with_constants

from infer_native import build_library, emit_model
from infer_native.isa import ISAS, runs_here

if TYPE_CHECKING:
    from pathlib import Path

    from infer_native.emit import Emitted

HERE = [name for name, isa in ISAS.items() if runs_here(isa)]
AROUND, MARK = 4096, 0xA5
# Images of one pixel with fewer channels than a vector has lanes, and views of one.
PIXELS = """<ir_version: 10, opset_import: ["": 20]>
t (float[1,24,3,3] x, float[5,24,3,3] v, float[3,24,1,1] w)
  => (float[1,5,1,1] a, float[1,3] b, float[3] c)
{ a = Conv(x, v)  m = GlobalAveragePool(x)  n = Conv(m, w)  b = Flatten(n)
  r = Relu(n)  shape = Constant<value = int64[1] {3}>()  c = Reshape(r, shape) }"""


def _bytes_model() -> ir.Model:
    """Ends in one quantised number, and in three."""
    network = Network((1, 24, 3, 3))
    small = network.conv(network.input, 1, 24, 3)
    mean = network.conv(network.mean(network.input), 3, 24, 1)
    return network.model(small, mean)


def _buffer(size: int) -> tuple[np.ndarray[Any, Any], int]:
    raw = np.full(size + 2 * AROUND + 64, MARK, np.uint8)
    return raw, AROUND + -(raw.ctypes.data + AROUND) % 64


def run_marked(emitted: Emitted, library: Path) -> list[str]:
    """Run on seeded numbers; the buffers around which a byte changed."""
    ports = (*emitted.inputs, *emitted.outputs)
    sizes = {"arena": emitted.arena_bytes, "weights": len(emitted.weights)}
    sizes |= {p.symbol: prod(p.shape) * np.dtype(p.dtype).itemsize for p in ports}
    buffers = {name: _buffer(size) for name, size in sizes.items()}
    contents = {"weights": np.frombuffer(emitted.weights, np.uint8)}
    rng = np.random.default_rng(0)
    for port in emitted.inputs:
        contents[port.symbol] = (rng.normal(size=port.shape) * 4).astype(port.dtype)
    for name, content in contents.items():
        raw, start = buffers[name]
        raw[start : start + sizes[name]] = content.reshape(-1).view(np.uint8)
    run = ctypes.CDLL(str(library)).model_run
    run.argtypes = [ctypes.c_void_p] * len(buffers)
    assert run(*(raw.ctypes.data + start for raw, start in buffers.values())) == 0
    return [
        name
        for name, (raw, start) in buffers.items()
        if (raw[:start] != MARK).any() or (raw[start + sizes[name] :] != MARK).any()
    ]


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("kind", ["pixels", "bytes", "convolutions"])
def test_no_byte_outside_changes(kind: str, isa: str, compiler: str, library_folder) -> None:
    if kind == "pixels":
        model = with_constants(PIXELS, 1)
    else:
        model = _bytes_model() if kind == "bytes" else ir.from_proto(convolutions())
    emitted = emit_model(model, isa=isa)
    library = build_library(emitted, compiler=compiler, folder=library_folder)
    assert run_marked(emitted, library) == []
