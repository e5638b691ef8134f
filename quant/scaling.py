"""Moving scale between the channels of an input and the rows of the weights that read it.

W x = (W s) (x / s): exact, and quantised better when s is chosen well.
- AWQ (Lin et al. 2024): weights that meet large inputs get finer levels.
- SmoothQuant (Xiao et al. 2023): outliers of the input move into the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.graph import add_initializer, constant, fresh_name, replace_constant
from quant.moments import rows_of, weight_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Array = np.ndarray[Any, Any]

STRENGTHS = tuple(n / 10 for n in range(10))  # AWQ's exponents; 0 changes nothing
SMALLEST = 1e-5  # of a channel's magnitude: what never occurs is not scaled to infinity


def smooth(rows: Sequence[Array], largest: Array, strength: float) -> Array:
    """s = max|x|^a / max|w|^(1-a) for each input channel (SmoothQuant, equation 4).

    Args:
        rows: the weights that read the input, each [outputs, inputs].
        largest: max|x|, [inputs].
        strength: a, 0 to 1; 1 makes all inputs alike.

    """
    x = np.maximum(largest, SMALLEST)
    w = np.maximum(np.max([np.abs(r).max(axis=0) for r in rows], axis=0), SMALLEST)
    return _normal(x**strength / w ** (1 - strength))


def activation_aware(rows: Sequence[Array], second: Array, real: Callable[[Array], Array]) -> Array:
    """s = rms(x)^a with the exponent of least output error; `real` quantises and dequantises."""
    size = np.maximum(np.sqrt(np.diagonal(second)), SMALLEST)

    def loss(scale: Array) -> float:
        errors = [real(r * scale) / scale - r for r in rows]
        return sum(float(np.sum((e @ second) * e)) for e in errors)

    return min((_normal(size**a) for a in STRENGTHS), key=loss)


def _normal(scale: Array) -> Array:
    """Around one: the scale of the whole does not matter."""
    return np.asarray(scale / np.sqrt(scale.max() * scale.min()))


def scale_input(nodes: Sequence[ir.Node], scale: Array) -> None:
    """Let MatMul or Gemm nodes with one input x, in order, read x / s; their weights take s."""
    value = nodes[0].inputs[0]
    assert value is not None
    graph = nodes[0].graph
    assert isinstance(graph, ir.Graph)
    factor = add_initializer(graph, f"{value.name}_factor", (1 / scale).astype(np.float32))
    name = fresh_name(graph, f"{value.name}_scaled")
    product = ir.node("Mul", [value, factor], name=name)
    product.outputs[0].name = name
    product.outputs[0].shape, product.outputs[0].type = value.shape, value.type
    graph.insert_before(nodes[0], product)
    for node in nodes:
        weight = constant(node.inputs[1])
        assert weight is not None
        scaled = (rows_of(node, weight) * scale).astype(np.float32)
        replace_constant(node, 1, weight_of(node, scaled, weight.shape))
        node.replace_input_with(0, product.outputs[0])
