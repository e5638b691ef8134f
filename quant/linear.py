"""The numbers of a quantised Conv, Gemm or MatMul: levels and scales of its weight, its bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.graph import constant
from quant.formats import INT2, INT3, INT4, INT8, REDUCED_INT8, IntegerFormat
from quant.gptq import round_rows
from quant.granularity import Granularity, PerAxis, PerTensor
from quant.moments import rows_of, weight_of
from quant.parameters import quantize_weight, weight_limits, weight_scale
from quant.tensor import group_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from quant.config import QuantizeConfig
    from quant.moments import Moments

    Array = np.ndarray[Any, Any]

SMALLEST_HALF = float(np.finfo(np.float16).smallest_normal)  # below it float16 loses digits
SHORT = {"w4a8": INT4, "w3a8": INT3, "w2a8": INT2, "w4a4": INT4, "w2a4": INT2}


@dataclass(frozen=True)
class Linear:
    """What replaces the constants of a node.

    levels: int8, in the shape of the weight, within the limits of the format; scale: float32, in
    the granularity's shape; bias: real, [outputs], None where the node has none and needs none.
    """

    format: IntegerFormat
    levels: Array
    scale: Array
    granularity: Granularity
    bias: Array | None


def quantize_linear(
    node: ir.Node,
    input_scale: np.float32,
    config: QuantizeConfig,
    moments: Mapping[str, Moments],
    form: IntegerFormat,
    *,
    half_scales: bool = False,
) -> Linear:
    """Choose scales, round, and take the mean error of the rounding out of the bias.

    `half_scales`: scales that float16 holds exactly, unless they are too small for it.
    """
    value = node.inputs[1]
    assert value is not None
    weight = constant(value)
    assert weight is not None
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    bias = None if bias is None else bias.reshape(-1)
    granularity = weight_granularity(node, config)
    short = form is not INT8
    best = group_parameters(weight, form, granularity, search=True)[0] if short else None
    scale = weight_scale(weight, granularity, bias, float(input_scale), best)
    if half_scales and scale.min(initial=np.inf) >= SMALLEST_HALF:
        scale = scale.astype(np.float16).astype(np.float32)
    met = moments.get(value.name or "")
    if met is not None and met.rows and config.rounding != "nearest":
        second = met.centred if corrects_bias(node, config) else met.second
        levels = _compensated(node, weight, granularity.spread(scale, weight), second, form)
    else:
        levels = quantize_weight(weight, scale, granularity, form)
    if met is not None and met.rows and corrects_bias(node, config):
        missed = weight - levels * granularity.spread(scale, weight)
        shift = np.einsum("gok,gk->go", rows_of(node, missed), met.mean).reshape(-1)
        bias = shift if bias is None else bias + shift
    return Linear(form, levels, scale, granularity, bias)


def real_weight(linear: Linear) -> Array:
    """The numbers that the levels stand for, float32."""
    scale = linear.granularity.spread(linear.scale, linear.levels)
    return np.asarray(linear.levels * scale, np.float32)


def corrects_bias(node: ir.Node, config: QuantizeConfig) -> bool:
    """Is the mean error of its weights taken out of its bias?"""
    return config.bias_correction and node.op_type != "MatMul"


def weight_format(config: QuantizeConfig, *, short: bool = True) -> IntegerFormat:
    """What a static scheme stores weights in: int8, and, if `short`, N bits for wNaM."""
    long = REDUCED_INT8 if config.reduce_range else INT8
    return SHORT.get(config.scheme, long) if short else long


def _compensated(
    node: ir.Node, weight: Array, steps: Array, second: Array, form: IntegerFormat
) -> Array:
    spread = rows_of(node, np.broadcast_to(steps, weight.shape))
    levels = round_rows(rows_of(node, weight), second, spread, *weight_limits(form))
    return weight_of(node, levels, weight.shape).astype(np.int8)


def weight_granularity(node: ir.Node, config: QuantizeConfig) -> Granularity:
    """Each output channel has a scale, wherever its axis is."""
    if config.per_tensor:
        return PerTensor()
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    return PerAxis(0 if node.op_type == "Conv" or transposed else 1)
