"""Networks that several tests of emitted C share."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper, shape_inference

# Operator, shape of the input, of the weights, attributes.
GEOMETRIES: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("Conv", (2, 8, 9, 23), (8, 8, 3, 7), {"pads": [1, 3, 1, 3]}),  # few outputs
    ("Conv", (1, 20, 7, 11), (1, 20, 5, 3), {"pads": [2, 0, 2, 1]}),
    ("Conv", (1, 5, 8, 19), (3, 5, 3, 5), {"strides": [2, 2]}),
    ("Conv", (1, 3, 15, 15), (20, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 0, 2]}),
    ("Conv", (1, 24, 13, 10), (40, 24, 3, 3), {"pads": [1, 1, 1, 1]}),
    ("Conv", (2, 33, 9, 9), (17, 33, 3, 3), {"pads": [0, 1, 2, 0]}),
    ("Conv", (1, 16, 6, 6), (32, 16, 3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ("Conv", (1, 20, 9, 9), (20, 1, 5, 5), {"group": 20, "pads": [2, 2, 2, 2]}),
    ("Conv", (1, 12, 9, 9), (24, 4, 3, 3), {"group": 3}),
    ("Conv", (2, 6, 40), (18, 6, 5), {"strides": [2], "pads": [2, 1]}),  # signals
    ("ConvTranspose", (2, 24, 5, 7), (24, 20, 2, 2), {"strides": [2, 2]}),  # no overlap
    ("ConvTranspose", (1, 18, 6, 5), (18, 1, 2, 2), {"strides": [2, 2]}),
    ("ConvTranspose", (1, 6, 5, 5), (6, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
]


def convolutions() -> Any:
    """All of them side by side, PRelu and a scale for each channel behind images, Relu else."""
    rng = np.random.default_rng(3)
    nodes, constants, inputs, outputs = [], [], [], []
    for number, (op, shape, weights, attrs) in enumerate(GEOMETRIES):
        out = weights[0 if op == "Conv" else 1]
        for name, size in (("w", weights), ("b", (out,))):
            values = (rng.normal(size=size) * 0.3).astype(np.float32)
            constants.append(numpy_helper.from_array(values, f"{name}{number}"))
        given = [f"x{number}", f"w{number}", f"b{number}"]
        nodes.append(helper.make_node(op, given, [f"c{number}"], **attrs))
        if len(shape) == 4:
            for name in ("p", "s"):
                values = rng.uniform(0.2, 1.5, (out, 1, 1)).astype(np.float32)
                constants.append(numpy_helper.from_array(values, f"{name}{number}"))
            nodes.append(helper.make_node("PRelu", [f"c{number}", f"p{number}"], [f"r{number}"]))
            nodes.append(helper.make_node("Mul", [f"s{number}", f"r{number}"], [f"y{number}"]))
        else:
            nodes.append(helper.make_node("Relu", [f"c{number}"], [f"y{number}"]))
        inputs.append(helper.make_tensor_value_info(f"x{number}", TensorProto.FLOAT, shape))
        outputs.append(helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "convolutions", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return shape_inference.infer_shapes(model)


class Network:
    """Text of a network in which every tensor is uint8 between two operators."""

    def __init__(self, shape: tuple[int, ...], bias: float = 1) -> None:
        self.bias = bias  # the scale of biases, against the product of the other two
        self._rng = np.random.default_rng(5)
        self._shape = shape
        self._lines: list[str] = []
        self._constants: list[str] = []
        self._count = 0
        self._scales: dict[str, float] = {}
        self._parameters: dict[str, str] = {}
        self.input = self._quantised("x")

    def conv(self, x: str, outputs: int, inputs: int, size: int, **attrs: object) -> str:
        """Weights below 64: older processors add pairs of products in 16 bits."""
        fan = inputs // int(str(attrs.get("group", 1)))
        weights = self._linear(x, (outputs, fan, size, size))
        text = ", ".join(f"{k} = {v}" for k, v in attrs.items())
        return self._quantised(f"Conv<{text}>({x}, {weights})" if text else f"Conv({x}, {weights})")

    def add(self, a: str, b: str) -> str:
        return self._quantised(f"Add({a}, {b})")

    def hard_swish(self, x: str) -> str:
        return self._quantised(f"HardSwish({x})")

    def prelu(self, x: str, channels: int) -> str:
        return self._quantised(self.slopes(x, channels))

    def slopes(self, x: str, channels: int) -> str:
        """An expression: nothing is rounded after it."""
        values = self._rng.uniform(-0.5, 1.5, (channels, 1, 1)).astype(np.float32)
        return f"PRelu({x}, {self._constant('float', values)})"

    def pool(self, x: str, **attrs: object) -> str:
        text = ", ".join(f"{k} = {v}" for k, v in attrs.items())
        if "(" in x:
            self._count += 1
            self._lines.append(f"p{self._count} = {x}")
            x = f"p{self._count}"
        return self._quantised(f"MaxPool<{text}>({x})")

    def pad(self, x: str, *pads: int) -> str:
        return self._quantised(f"Pad({x}, {self._constant('int64', np.array(pads))})")

    def join(self, *x: str) -> str:
        return self._quantised(f"Concat<axis = 1>({', '.join(x)})")

    def mean(self, x: str) -> str:
        return self._quantised(f"GlobalAveragePool({x})")

    def gemm(self, x: str, outputs: int, inputs: int) -> str:
        weights = self._linear(x, (outputs, inputs))
        shape = self._constant("int64", np.array([-1, inputs]))
        rows = self._quantised(f"Reshape({x}, {shape})", like=x)
        self._lines.append(f"logits = Gemm<transB = 1>({rows}, {weights})")
        return "logits"

    def model(self, *outputs: str) -> ir.Model:
        sizes = ",".join(map(str, self._shape))
        results = ", ".join(f"float[{'n,' * (1 if o == 'logits' else 3)}n] {o}" for o in outputs)
        return ir.from_onnx_text(
            '<ir_version: 10, opset_import: ["": 20]>\n'
            f"t (float[{sizes}] x) => ({results})\n<{', '.join(self._constants)}>\n"
            f"{{ {chr(10).join(self._lines)} }}"
        )

    def _constant(self, kind: str, values: np.ndarray) -> str:
        self._count += 1
        name = f"c{self._count}"
        numbers = ", ".join(str(v) for v in values.reshape(-1).tolist())
        shape = f"[{','.join(map(str, values.shape))}]" if values.ndim else ""
        self._constants.append(f"{kind}{shape} {name} = {{{numbers}}}")
        return name

    def _quantised(self, expression: str, like: str = "") -> str:
        """Through QuantizeLinear and back, with the parameters of `like` or new ones."""
        self._count += 1
        name, source = f"v{self._count}", expression
        if like:
            self._parameters[name] = self._parameters[like]
        else:
            self._scales[name] = float(self._rng.uniform(0.02, 0.05))
            scale = self._constant("float", np.array(self._scales[name]))
            point = self._constant("uint8", self._rng.integers(90, 160, ()))
            self._parameters[name] = f"{scale}, {point}"
        if "(" in expression:
            self._lines.append(f"r{name} = {expression}")
            source = f"r{name}"
        self._lines.append(
            f"q{name} = QuantizeLinear({source}, {self._parameters[name]})  "
            f"{name} = DequantizeLinear(q{name}, {self._parameters[name]})"
        )
        return name

    def _linear(self, x: str, shape: tuple[int, ...]) -> str:
        """Names of dequantised weights and bias: per channel, the bias at the product's scale."""
        rng = self._rng
        scales = rng.uniform(0.5, 1, shape[0]) / np.sqrt(np.prod(shape[1:])) / 30
        w = self._constant("int8", rng.integers(-63, 64, shape))
        w_scale = self._constant("float", scales)
        b = self._constant("int32", rng.integers(-900, 900, shape[0]))
        b_scale = self._constant("float", scales * self._scales[x] * self.bias)
        zeros = [self._constant(t, np.zeros(shape[0], np.int64)) for t in ("int8", "int32")]
        self._lines.append(
            f"w{w} = DequantizeLinear<axis = 0>({w}, {w_scale}, {zeros[0]})  "
            f"b{b} = DequantizeLinear<axis = 0>({b}, {b_scale}, {zeros[1]})"
        )
        return f"w{w}, b{b}"


def integer_network() -> ir.Model:
    """Every kind of integer layer: sums in both orders, borders, strides, odd channels."""
    net = Network((2, 3, 19, 17))
    a = net.conv(net.input, 20, 3, 3, strides=[2, 2], pads=[1, 1, 1, 1])
    b = net.conv(a, 20, 20, 3, group=20, pads=[1, 1, 1, 1])
    c = net.conv(b, 40, 20, 1)
    d = net.conv(c, 40, 40, 5, group=40, strides=[2, 2], pads=[2, 2, 2, 2])
    e = net.conv(d, 40, 40, 3, pads=[2, 2, 2, 2], dilations=[2, 2])
    f = net.add(d, e)
    g = net.add(net.conv(f, 40, 40, 1), f)
    h = net.add(net.conv(g, 40, 40, 1, strides=[1, 1]), net.conv(g, 40, 40, 3, pads=[1, 0, 1, 2]))
    logits = net.gemm(net.mean(h), 10, 40)
    return net.model(a, d, g, logits)


def sloped_network() -> ir.Model:
    """Every kind of integer layer that ends in two lines; bytes pooled, bordered, side by side.

    The sum h is read twice, so that its lines stay apart.
    """
    net = Network((2, 3, 19, 17))
    stem = net.conv(net.input, 20, 3, 3, strides=[2, 2], pads=[1, 1, 1, 1])
    a = net.pool(net.slopes(stem, 20), kernel_shape=[3, 2], strides=[1, 2], pads=[1, 0, 1, 1])
    b = net.prelu(net.conv(a, 20, 20, 3, group=20, pads=[1, 1, 1, 1]), 20)
    c = net.prelu(net.conv(b, 24, 20, 1), 24)
    d = net.pad(net.conv(c, 20, 24, 3, pads=[1, 1, 1, 1]), 0, 0, 0, 0, 0, 4, 0, 0)
    e = net.prelu(net.add(d, net.conv(c, 24, 24, 1)), 24)
    f = net.pad(e, 0, 0, 1, 0, 0, 0, 0, 2)
    g = net.prelu(net.add(net.conv(f, 24, 24, 1), f), 24)
    h = net.add(f, g)
    i = net.join(f, h, g)
    return net.model(net.prelu(h, 24), net.conv(h, 3, 24, 3), net.conv(i, 5, 72, 1))


def chained(depth: int, channels: int, size: int, **attrs: Any) -> tuple[ir.Model, Any]:
    """3 x 3 convolutions with Relu, one after the other, and the same in NumPy on float64."""
    rng = np.random.default_rng(channels)
    nodes, constants, filters = [], [], []
    for number in range(depth):
        values = rng.normal(size=(channels, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        filters.append(values.astype(np.float32))
        constants.append(numpy_helper.from_array(filters[-1], f"w{number}"))
        given = [f"r{number}" if number else "x", f"w{number}"]
        nodes.append(helper.make_node("Conv", given, [f"c{number}"], **{"pads": [1] * 4, **attrs}))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number + 1}"]))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
        for name, sizes in (("x", (1, channels, size, size)), (f"r{depth}", None))
    ]
    graph = helper.make_graph(nodes, "chain", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    def reference(x: np.ndarray) -> np.ndarray:
        for filter_ in filters:
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
            sums = np.tensordot(windows, filter_.astype(np.float64), ([1, 4, 5], [1, 2, 3]))
            x = np.maximum(sums.transpose(0, 3, 1, 2), 0)
        return x

    return ir.from_proto(shape_inference.infer_shapes(model)), reference


# channels, outputs, size, kernel, attributes
BINARY_CASES = [
    (5, 7, (6, 7), (3, 3), "pads = [1, 1, 1, 1]"),
    (40, 20, (9, 8), (3, 2), "strides = [2, 3], pads = [0, 1, 1, 0]"),
    (33, 48, (8, 9), (3, 3), "strides = [1, 2], dilations = [2, 3], pads = [2, 3, 3, 2]"),
    (70, 3, (4, 5), (1, 1), "strides = [2, 2]"),
]


def binary_network(case: tuple, *, last: float = 1) -> ir.Model:
    """Signs, a Conv of signs, a scale and a bias for each channel; `last` scales one weight."""
    channels, outputs, size, kernel, attrs = case
    rng = np.random.default_rng(channels)
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 20]>\n'
        f"t (float[2,{channels},{size[0]},{size[1]}] x, float[{channels},1,1] t, "
        f"float[{outputs},{channels},{kernel[0]},{kernel[1]}] w, float[{outputs},1,1] s, "
        f"float[{outputs},1,1] b) => (float[n,c,h,v] y)\n<float one = {{1}}, float other = {{-1}}>\n"
        "{ g = GreaterOrEqual(x, t)  v = Where(g, one, other)"
        f"  c = Conv<{attrs}>(v, w)  m = Mul(c, s)  y = Add(m, b) }}"
    )
    signs = np.where(rng.random((outputs, channels, *kernel)) < 0.5, 1, -1).astype(np.float32)
    signs[0, 0, 0, 0] *= last
    drawn = {
        "t": np.round(rng.normal(size=(channels, 1, 1)), 1),
        "w": signs,
        "s": rng.uniform(0.1, 2, (outputs, 1, 1)),
        "b": rng.normal(size=(outputs, 1, 1)),
    }
    for value in list(model.graph.inputs[1:]):
        value.const_value = ir.tensor(drawn[value.name or ""].astype(np.float32))
        model.graph.register_initializer(value)
    del model.graph.inputs[1:]
    return model


def with_constants(text: str, inputs: int, scale: float = 1.0) -> ir.Model:
    """A model from text; what it takes behind the first inputs becomes seeded constants."""
    rng = np.random.default_rng(3)
    model = ir.from_onnx_text(text)
    for value in list(model.graph.inputs[inputs:]):
        assert value.shape is not None
        numbers = (rng.normal(size=value.shape.numpy()) * scale).astype(np.float32)
        value.const_value = ir.tensor(numbers)
        model.graph.register_initializer(value)
    del model.graph.inputs[inputs:]
    return model


BINARY_CHAIN = """<ir_version: 10, opset_import: ["": 20]>
t (float[2,24,7,6] x) => (float[2,40,3,3] y)
<float one = {1}, float other = {-1}> {
  g0 = GreaterOrEqual(x, t0)  v0 = Where(g0, one, other)
  c0 = Conv<pads = [1, 1, 1, 1]>(v0, w0)  m0 = Mul(c0, s0)  a0 = Add(m0, b0)
  k0 = Mul(x, n0)  e0 = Add(a0, k0)  r0 = Relu(e0)
  g1 = GreaterOrEqual(r0, t1)  v1 = Where(g1, one, other)
  c1 = Conv<pads = [1, 1, 1, 1]>(v1, w1)  m1 = Mul(c1, s1)  a1 = Add(m1, b1)
  k1 = Mul(r0, n1)  e1 = Add(a1, k1)  f1 = Add(x, e1)  r1 = Relu(f1)
  g2 = GreaterOrEqual(r1, t2)  v2 = Where(g2, one, other)
  c2 = Conv<pads = [0, 0, 1, 1], strides = [2, 2]>(v2, w2)  m2 = Mul(c2, s2)  a2 = Add(m2, b2)
  g3 = GreaterOrEqual(a2, t3)  v3 = Where(g3, one, other)
  c3 = Conv(v3, w3)  m3 = Mul(c3, s3)  y = Add(m3, b3)
}"""
BINARY_FILTERS = ((24, 24, 3, 3), (24, 24, 3, 3), (33, 24, 3, 3), (40, 33, 1, 1))


def binary_chain() -> ir.Model:
    """Binary layers with what goes round them; the second has weights of 0 too."""
    rng = np.random.default_rng(2)
    drawn: dict[str, np.ndarray] = {}
    for number, shape in enumerate(BINARY_FILTERS):
        weights = rng.integers(0, 2, shape) * 2 - 1
        if number == 1:
            weights *= rng.integers(0, 2, shape)
        ones, outputs = (shape[1], 1, 1), (shape[0], 1, 1)
        drawn[f"t{number}"], drawn[f"w{number}"] = rng.normal(size=ones), weights
        drawn[f"s{number}"], drawn[f"b{number}"] = (
            rng.uniform(0.02, 0.1, outputs),
            rng.normal(size=outputs),
        )
    drawn["n0"], drawn["n1"] = rng.normal(size=(2, 24, 1, 1))
    given = "".join(f", float[{','.join(map(str, a.shape))}] {n}" for n, a in drawn.items())
    model = ir.from_onnx_text(BINARY_CHAIN.replace("] x)", f"] x{given})"))
    for value in list(model.graph.inputs[1:]):
        value.const_value = ir.tensor(drawn[value.name or ""].astype(np.float32))
        model.graph.register_initializer(value)
    del model.graph.inputs[1:]
    return model
