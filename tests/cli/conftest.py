"""Running the command line in this process, and small real models to run it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from infer_tool.cli import main

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """What a run of the command line left."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]):
    """Run the command line; returns its status, stdout and stderr."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        status = main([str(a) for a in arguments])
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of bundled models."""
    return REPOSITORY / "sample_models"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A two-layer classifier of four features, with seeded weights, as a file."""
    generator = np.random.default_rng(7)
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 20]>
        tiny (float[N,4] x) => (float[N,3] y)
        { h = Gemm(x, w1, b1)
          r = Relu(h)
          y = Gemm(r, w2, b2) }"""
    )
    shapes = {"w1": (4, 16), "b1": (16,), "w2": (16, 3), "b2": (3,)}
    values = {v.name: v for n in model.graph for v in n.inputs}
    for name, shape in shapes.items():
        value = values[name]
        array = generator.normal(size=shape).astype(np.float32)
        value.const_value = ir.tensor(array, name=name)
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
        model.graph.register_initializer(value)
    for number, node in enumerate(model.graph):
        node.name = f"layer{number}"
    path = tmp_path / "tiny.onnx"
    ir.save(model, path)
    return path


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """60 samples for `tiny`, with labels."""
    generator = np.random.default_rng(8)
    path = tmp_path / "tiny.npz"
    x = generator.normal(size=(60, 4)).astype(np.float32)
    np.savez(path, x=x, labels=generator.integers(0, 3, 60))
    return path
