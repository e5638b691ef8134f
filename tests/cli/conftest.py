"""Running the command line in this process, and small real models to run it on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from infer_tool.cli import main
from infer_tool.report.schema import FILE

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """What a run of the command line left."""

    status: int
    out: str
    err: str


def validate(document: object) -> None:
    """Every document that a test sees follows the published schema."""
    jsonschema.Draft202012Validator(json.loads(FILE.read_text())).validate(document)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]):
    """Run the command line; returns its status, stdout and stderr."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        status = main([str(a) for a in arguments])
        captured = capfd.readouterr()
        if "--json" in arguments:
            validate(json.loads(captured.out))
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
    shapes = {"w1": (4, 16), "b1": (16,), "w2": (16, 3), "b2": (3,)}
    weights = [
        numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="layer0"),
        helper.make_node("Relu", ["h"], ["r"], name="layer1"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="layer2"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """60 samples for `tiny`, with labels."""
    generator = np.random.default_rng(8)
    path = tmp_path / "tiny.npz"
    x = generator.normal(size=(60, 4)).astype(np.float32)
    np.savez(path, x=x, labels=generator.integers(0, 3, 60))
    return path
