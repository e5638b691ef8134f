"""Gelu and its relatives, and the activations that fused operators carry by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_tool.importers.contrib.builder import Builder, Unexpressible

if TYPE_CHECKING:
    import onnx_ir as ir

    Outputs = list[ir.Value | None]


def gelu(b: Builder, _: ir.Node) -> Outputs:
    """x -> 0.5 x (1 + erf(x / sqrt 2))."""
    return [b.op("Gelu", b.required(0))]


def bias_gelu(b: Builder, _: ir.Node) -> Outputs:
    """Gelu(x + bias)."""
    return [b.op("Gelu", b.op("Add", b.required(0), b.required(1)))]


def fast_gelu(b: Builder, _: ir.Node) -> Outputs:
    """The approximation by tanh, of x + bias."""
    x, bias = b.required(0), b.argument(1)
    return [b.op("Gelu", x if bias is None else b.op("Add", x, bias), approximate="tanh")]


def quick_gelu(b: Builder, _: ir.Node) -> Outputs:
    """X sigmoid(alpha x)."""
    x = b.required(0)
    scaled = b.op("Mul", x, b.scalar(b.attribute("alpha", 1.702), x))
    return [b.op("Mul", x, b.op("Sigmoid", scaled))]


def activate(b: Builder, x: ir.Value, name: str, parameters: list[float]) -> ir.Value:
    """What a fused operator calls its activation; '' is none."""
    if not name:
        return x
    if name in ("Relu", "Tanh", "Sigmoid"):
        return b.op(name, x)
    if name == "Clip":
        return b.op("Clip", x, b.scalar(parameters[0], x), b.scalar(parameters[1], x))
    keys = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}.get(name)
    if keys is None or len(parameters) < len(keys):
        raise Unexpressible
    attributes: dict[str, Any] = dict(zip(keys, map(float, parameters), strict=False))
    return b.op(name, x, **attributes)


RULES = {"Gelu": gelu, "BiasGelu": bias_gelu, "FastGelu": fast_gelu, "QuickGelu": quick_gelu}
