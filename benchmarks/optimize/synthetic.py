"""Generated models: long graphs, and one with more weights than fit into a small machine.

python benchmarks/optimize/synthetic.py layers COUNT OUT.onnx
python benchmarks/optimize/synthetic.py large GIGABYTES OUT.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 4096
CHANNELS = 8
# What each block of the long graph holds; all but the Conv and the Relu can go.
BLOCK = ("Identity", "Conv", "BatchNormalization", "Relu", "Shape", "Reshape", "Add", "Mul")


def layers(count: int, path: Path) -> None:
    """A network of about `count` nodes in blocks of eight, as exporters write them."""
    generator = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for number in range(count // len(BLOCK)):
        found, value = _block(number, value, generator)
        nodes += found[0]
        weights += found[1]
    shape = ["N", CHANNELS, 4, 4]
    _save(nodes, weights, shape, value, path)


def _block(number: int, value: str, generator: np.random.Generator) -> tuple[tuple, str]:
    def name(part: str) -> str:
        return f"{part}{number}"

    def constant(part: str, *shape: int) -> onnx.TensorProto:
        array = generator.normal(1, 0.1, shape).astype(np.float32)
        return numpy_helper.from_array(array, name(part))

    w, k, s = constant("w", CHANNELS, CHANNELS, 1, 1), constant("k", 8, 1, 1), constant("s", 1)
    w = numpy_helper.from_array(numpy_helper.to_array(w) / CHANNELS, w.name)
    statistics = [constant(p, CHANNELS) for p in ("scale", "shift", "mean", "var")]
    n = name
    nodes = [
        helper.make_node("Identity", [value], [n("a")]),
        helper.make_node("Conv", [n("a"), n("w")], [n("b")]),
        helper.make_node("Mul", [n("b"), n("s")], [n("c")]),
        helper.make_node("Add", [n("c"), n("k")], [n("d")]),
        helper.make_node("BatchNormalization", [n("d"), *(t.name for t in statistics)], [n("e")]),
        helper.make_node("Relu", [n("e")], [n("f")]),
        helper.make_node("Shape", [n("f")], [n("g")]),
        helper.make_node("Reshape", [n("f"), n("g")], [n("h")]),
    ]
    return (nodes, [w, k, s, *statistics]), n("h")


def large(gigabytes: float, path: Path) -> None:
    """Square layers whose weights lie in a file of their own, written piece by piece."""
    count = max(1, round(gigabytes * 1e9 / (4 * WIDTH**2)))
    base = np.random.default_rng(0).normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
    nodes, weights, value = [], [], "x"
    data = path.with_name(f"{path.name}.data")
    with data.open("wb") as file:
        for number in range(count):
            weights.append(_external(f"w{number}", data.name, file.tell()))
            file.write((base * np.float32(1 + number / count)).data)
            bias = np.full(WIDTH, number / count, np.float32)
            weights.append(numpy_helper.from_array(bias, f"k{number}"))
            parts = [f"{p}{number}" for p in "abcd"]
            nodes += [
                helper.make_node("Identity", [value], [parts[0]]),
                helper.make_node("MatMul", [parts[0], f"w{number}"], [parts[1]]),
                helper.make_node("Add", [parts[1], f"k{number}"], [parts[2]]),
                helper.make_node("Tanh", [parts[2]], [parts[3]]),
            ]
            value = parts[3]
    _save(nodes, weights, ["N", WIDTH], value, path)


def _external(name: str, location: str, offset: int) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", 4 * WIDTH**2)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _save(nodes: list, weights: list, shape: list, output: str, path: Path) -> None:
    nodes.append(helper.make_node("Relu", [output], ["y"]))
    for number, node in enumerate(nodes):
        node.name = f"n{number}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "synthetic", [x], [y], weights)
    opset = helper.make_opsetid("", 20)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()
    )


if __name__ == "__main__":
    makers = {"layers": layers, "large": large}
    size = float(sys.argv[2])
    makers[sys.argv[1]](int(size) if sys.argv[1] == "layers" else size, Path(sys.argv[3]))
