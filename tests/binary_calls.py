"""Models of calls of the functions of binary layers, with random constants."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from infer_runtime.functions import LOCAL
from quant.binarize.functions import define
from quant.packing import pack

# channels, outputs, groups, sizes, kernel, strides, pads, dilations
CONVS = {
    "odd channels": (5, 7, 1, (6, 7), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "groups, strides": (6, 8, 2, (9, 8), (3, 2), (2, 3), (0, 1, 1, 0), (1, 1)),
    "dilations, wide pads": (3, 4, 1, (8, 9), (3, 3), (1, 2), (2, 3, 3, 2), (2, 3)),
    "pointwise": (70, 3, 1, (4, 5), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    "many channels": (130, 9, 1, (5, 5), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "one axis": (9, 6, 3, (17,), (4,), (3,), (3, 2), (2,)),
    "three axes": (4, 3, 1, (4, 5, 3), (2, 3, 2), (1, 2, 1), (1, 0, 1, 0, 1, 0), (1, 1, 1)),
    "depthwise": (4, 4, 4, (6, 6), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
}


class Call(NamedTuple):
    """A function, what it reads, the shape of its weight, and its other attributes."""

    name: str
    x: np.ndarray
    shape: tuple[int, ...]
    attributes: dict[str, object]


def convolution(name: str, case: str, samples: int = 4) -> Call:
    """A case of CONVS on random numbers."""
    channels, outputs, group, sizes, kernel, strides, pads, dilations = CONVS[case]
    x = np.random.default_rng(3).normal(size=(samples, channels, *sizes)).astype(np.float32)
    given = {"group": group, "strides": strides, "pads": pads, "dilations": dilations}
    return Call(name, x, (outputs, channels // group, *kernel), given)


def model_of(name: str, x: np.ndarray, shape: tuple[int, ...], **attributes: object) -> ir.Model:
    """One call, from x to y."""
    return model_of_calls({"": Call(name, x, shape, attributes)})


def model_of_calls(calls: dict[str, Call]) -> ir.Model:
    """Calls side by side, from x<key> to y<key>; a third of the inputs lies on a threshold."""
    inputs, constants, nodes = [], [], []
    for key, call in calls.items():
        arrays = _constants(call)
        shape = ir.Shape(call.x.shape)
        x = ir.Value(name=f"x{key}", type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
        given = [
            ir.Value(name=f"{n}{key}", const_value=ir.tensor(a, name=f"{n}{key}"),
                     shape=ir.Shape(a.shape), type=ir.TensorType(ir.tensor(a).dtype))
            for n, a in arrays.items()
        ]  # fmt: skip
        attributes = {**call.attributes, "shape": list(call.shape)}
        node = ir.node(call.name, [x, *given], attributes=attributes, domain=LOCAL, name=f"n{key}")
        node.outputs[0].name, node.outputs[0].type = f"y{key}", ir.TensorType(ir.DataType.FLOAT)
        inputs, constants, nodes = [*inputs, x], [*constants, *given], [*nodes, node]
    graph = ir.Graph(inputs, [n.outputs[0] for n in nodes], nodes=nodes, initializers=constants,
                     opset_imports={"": 20}, name="g")  # fmt: skip
    model = ir.Model(graph, ir_version=10)
    for name in dict.fromkeys(call.name for call in calls.values()):
        define(model, name[:-4], name[-4:])
    return model


def _constants(call: Call) -> dict[str, np.ndarray]:
    shape, x = call.shape, call.x
    r = np.random.default_rng(abs(hash(shape)) % 1000)
    form, kind = call.name[:-4], call.name[-4:]
    bits = 2 if form == "Ternary" else 1
    ones = (1,) * (len(shape) - 2)
    scale_shape = (shape[0], *ones) if form == "Xnor" else (shape[0], *ones, 1)
    if (form, kind) == ("Xnor", "Gemm"):
        scale_shape = shape[:1]
    arrays = {
        "packed": pack(r.integers(0, 2**bits - bits // 2, shape).astype(np.uint8), bits),
        "scale": r.normal(size=scale_shape).astype(np.float16),
        "bias": r.normal(size=(shape[0], *(ones if form == "Xnor" else ()))).astype(np.float32),
    }
    if form == "Xnor":
        channels = x.shape[1] if kind == "Conv" else x.shape[-1]
        threshold = r.normal(size=channels).astype(np.float32)
        threshold = threshold.reshape(-1, *(ones if kind == "Conv" else ()))
        x[::3] = threshold
        arrays = {"threshold": threshold, **arrays}
    return arrays
