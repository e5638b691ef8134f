"""Which operators the emitter claims, and for which types: the table behind `doctor --native`."""

from __future__ import annotations

from functools import cache

from infer_native.kernels import claimed_ops
from infer_native.program import C_TYPES

FLOATS = ("float32", "float64")
_SMALL = ("int8", "uint8", "int16", "uint16")
_BYTES = ("int8", "uint8", "int32", "float32")
# Where a kernel has fewer types than the operator.
_NARROWER = {
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLinear"), ("float32", "uint8", "int32")),
    "QuantizeLinear": ("float32", *_SMALL),
    "DequantizeLinear": ("float32", *_SMALL, "int32"),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul"), _BYTES),
}


@cache
def claims() -> dict[str, tuple[str, ...]]:
    """Types of tensors by operator: those that the standard allows it and that have a kernel."""
    from onnx.defs import get_schema

    found = {}
    for op in claimed_ops():
        schema = get_schema(op)
        given = [t for port in (*schema.inputs, *schema.outputs) for t in port.types]
        allowed = {_name(t) for t in given}
        types = [t for t in C_TYPES if t in allowed]
        found[op] = tuple(t for t in types if t in _NARROWER.get(op, types))
    return found


def _name(text: str) -> str:
    """'tensor(float)' as NumPy names it."""
    inner = text.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)
