"""Integer layers against ONNX Runtime's own integer kernels: the same bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from infer_native import emit_model
from infer_native.isa import ISAS, runs_here

HERE = [name for name, isa in ISAS.items() if runs_here(isa)]


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


def network() -> ir.Model:
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


@pytest.mark.parametrize("isa", HERE)
def test_every_integer_layer_has_the_bits_of_onnx_runtime(native, isa: str) -> None:
    model = network()
    x = np.random.default_rng(1).normal(0, 2, (2, 3, 19, 17)).astype(np.float32)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    got = native(model, {"x": x}, isa)
    for info, wanted in zip(session.get_outputs(), session.run(None, {"x": x}), strict=True):
        assert len(np.unique(wanted)) > 10
        assert np.array_equal(got[info.name], wanted), info.name


def test_no_layer_between_quantised_tensors_stays_in_float() -> None:
    operators = emit_model(network(), isa="scalar").operators
    assert not {"Conv", "Gemm", "GlobalAveragePool"} & set(operators)
    assert operators.count("_QConv") == 8
    assert operators.count("QuantizeLinear") == 1


def test_a_bias_at_another_scale_keeps_its_layer_in_float(native) -> None:
    net = Network((1, 3, 9, 9), bias=1.01)
    model = net.model(net.conv(net.input, 8, 3, 3))
    assert "Conv" in emit_model(model, isa="scalar").operators
    x = np.random.default_rng(2).normal(0, 2, (1, 3, 9, 9)).astype(np.float32)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    (wanted,) = session.run(None, {"x": x})
    (got,) = native(model, {"x": x}).values()
    steps = np.abs(got - wanted) / np.diff(np.unique(wanted)).min()
    assert (steps > 0.5).mean() < 0.01  # sums of floats in another order
    assert steps.max() < 1.5
