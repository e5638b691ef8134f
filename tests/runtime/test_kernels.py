"""Kernels of all other families against ONNX Runtime, in tables of small cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import run_node
from infer_runtime.ops.special import erf

Agrees = Callable[..., None]


def f32(*shape: int, mean: float = 0.4, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) + mean).astype(np.float32)


def i64(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def positive(*shape: int) -> np.ndarray:
    return np.abs(f32(*shape)) + np.float32(0.5)


UNIT = np.linspace(-0.99, 0.99, 23, dtype=np.float32)


@pytest.mark.parametrize(
    ("op", "x"),
    [
        *((op, f32(3, 4) * 3) for op in (
            "Abs", "Atan", "Ceil", "Cos", "Erf", "Exp", "Floor", "Neg", "Reciprocal", "Round",
            "Sign", "Sin", "Sinh", "Cosh", "Asinh", "Tanh", "Relu", "Sigmoid", "Softplus",
            "Softsign", "HardSwish", "Mish", "Elu", "Selu", "Celu", "LeakyRelu", "HardSigmoid",
            "ThresholdedRelu", "Shrink", "Gelu", "IsNaN", "IsInf", "Identity", "Tan",
        )),
        *((op, UNIT) for op in ("Acos", "Asin", "Atanh")),
        *((op, positive(3, 4) + 1) for op in ("Log", "Sqrt", "Acosh")),
        ("Round", np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)),
        ("Relu", np.array([-1, 0, 5], np.int8)),
        ("Sigmoid", np.array([-1e4, -90, 0, 90, 1e4], np.float32)),
        ("Not", np.array([True, False])),
        ("BitwiseNot", np.array([1, -5], np.int32)),
    ],
)  # fmt: skip
def test_unary(agrees: Agrees, op: str, x: np.ndarray) -> None:
    agrees(op, x)


@pytest.mark.parametrize("op", ["Elu", "LeakyRelu", "ThresholdedRelu", "Celu"])
def test_activation_with_alpha(agrees: Agrees, op: str) -> None:
    agrees(op, f32(3, 4) * 3, alpha=0.7)


def test_gelu_by_tanh(agrees: Agrees) -> None:
    agrees("Gelu", f32(3, 4) * 3, approximate="tanh")


def test_erf_is_accurate() -> None:
    x = np.linspace(-7, 7, 2001)
    wanted = np.array([math.erf(v) for v in x])
    np.testing.assert_allclose(erf(x), wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(erf(x.astype(np.float32)), wanted, rtol=5e-7, atol=0)
    assert erf(np.array([np.inf, -np.inf], np.float32)).tolist() == [1, -1]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        *((op, [f32(2, 1, 4), positive(3, 1)], {}) for op in (
            "Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Less", "Greater",
            "LessOrEqual", "GreaterOrEqual", "Equal", "PRelu",
        )),
        ("Pow", [positive(2, 3), f32(3)], {}),
        ("Pow", [np.array([2, 3], np.int32), np.array([3.0, 2.0], np.float32)], {}),
        ("Div", [np.array([7, -7, 7, -7], np.int32), np.array([2, 2, -2, -2], np.int32)], {}),
        ("Mod", [np.array([7, -7, 7, -7], np.int32), np.array([3, 3, -3, -3], np.int32)], {}),
        ("Mod", [f32(5) * 5, positive(5)], {"fmod": 1}),
        ("And", [np.array([[True], [False]]), np.array([True, False])], {}),
        ("Xor", [np.array([[True], [False]]), np.array([True, False])], {}),
        ("BitShift", [np.array([1, 4], np.uint8), np.array([2, 1], np.uint8)],
         {"direction": "LEFT"}),
        ("Where", [np.array([True, False, True]), f32(2, 3), f32(1)], {}),
        ("Clip", [f32(3, 4), np.float32(0), np.float32(0.5)], {}),
        ("Clip", [f32(3, 4), None, np.float32(0.5)], {}),
        ("MatMul", [f32(2, 3, 4), f32(4, 5)], {}),
        ("MatMul", [f32(4), f32(2, 4, 5)], {}),
        ("Gemm", [f32(3, 4), f32(4, 5), f32(5)], {}),
        ("Gemm", [f32(4, 3), f32(5, 4), f32(3, 1)],
         {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
        ("Einsum", [f32(2, 3, 4), f32(2, 5, 4)], {"equation": "bij, bkj -> bik"}),
    ],
)  # fmt: skip
def test_several_inputs(agrees: Agrees, op: str, inputs: Any, attributes: Any) -> None:
    agrees(op, *inputs, **attributes)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize(("opset", "axis"), [(20, -1), (20, 1), (11, 1), (11, 2)])
def test_softmax_before_and_after_opset_13(agrees: Agrees, op: str, opset: int, axis: int) -> None:
    agrees(op, f32(2, 3, 4) * 4, opset=opset, axis=axis)


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15, 20])
def test_batch_normalization_of_every_opset(agrees: Agrees, opset: int) -> None:
    inputs = (f32(2, 3, 4, 5), f32(3), f32(3, seed=2), f32(3, seed=3), positive(3))
    agrees("BatchNormalization", *inputs, opset=opset, epsilon=1e-3)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("InstanceNormalization", [f32(2, 3, 4, 5), f32(3), f32(3)], {"epsilon": 1e-3}),
        ("LayerNormalization", [f32(2, 3, 4), f32(4), f32(4)], {}),
        ("LayerNormalization", [f32(2, 3, 4), f32(3, 4)], {"axis": 1, "epsilon": 1e-2}),
        ("LRN", [f32(1, 7, 3, 3)], {"size": 5, "alpha": 0.1, "bias": 2.0}),
        ("LpNormalization", [f32(3, 4)], {"p": 1, "axis": 0}),
        ("LpNormalization", [f32(3, 4)], {}),
        ("MeanVarianceNormalization", [f32(2, 3, 4, 5)], {}),
    ],
)
def test_normalization(agrees: Agrees, op: str, inputs: Any, attributes: Any) -> None:
    agrees(op, *inputs, **attributes, atol=1e-5)


def test_group_normalization(agrees: Agrees) -> None:
    agrees("GroupNormalization", f32(2, 4, 3), f32(4), f32(4), opset=21, num_groups=2, atol=1e-5)
    agrees("GroupNormalization", f32(2, 4, 3), f32(2), f32(2), opset=20, num_groups=2, atol=1e-5)


REDUCTIONS = ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
              "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ReduceSum"]  # fmt: skip


@pytest.mark.parametrize("op", REDUCTIONS)
def test_reductions(agrees: Agrees, op: str) -> None:
    x = positive(2, 3, 4)
    agrees(op, x, i64(0, -1))
    agrees(op, x, i64(1), keepdims=0)
    agrees(op, x)
    agrees(op, x, opset=11, axes=[1, 2])
    agrees(op, x, opset=11, keepdims=0)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
def test_arg_of_ties(agrees: Agrees, op: str, last: int) -> None:
    x = np.array([[1, 3, 3, 1], [2, 2, 2, 2]], np.float32)
    agrees(op, x, axis=1, select_last_index=last)
    agrees(op, x, axis=0, keepdims=0, select_last_index=last)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_cumsum(agrees: Agrees, exclusive: int, reverse: int) -> None:
    axis = np.array(1, np.int64)
    agrees("CumSum", f32(2, 5), axis, exclusive=exclusive, reverse=reverse)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Reshape", [f32(2, 3, 4), i64(0, -1, 2)], {}),
        ("Transpose", [f32(2, 3, 4)], {"perm": [2, 0, 1]}),
        ("Transpose", [f32(2, 3, 4)], {}),
        ("Flatten", [f32(2, 3, 4)], {"axis": -1}),
        ("Squeeze", [f32(1, 3, 1)], {}),
        ("Squeeze", [f32(1, 3, 1), i64(-1)], {}),
        ("Unsqueeze", [f32(3), i64(0, -1)], {}),
        ("Concat", [f32(2, 3), f32(2, 1)], {"axis": -1}),
        ("Expand", [f32(3, 1), i64(2, 1, 4)], {}),
        ("Tile", [f32(2, 3), i64(2, 3)], {}),
        ("Slice", [f32(5, 6), i64(1, -1), i64(100, -100), i64(0, 1), i64(2, -2)], {}),
        ("Slice", [f32(5, 6), i64(-4), i64(-1)], {}),
        ("Pad", [f32(2, 3), i64(1, 0, 0, 2), np.float32(7)], {}),
        ("Pad", [f32(4, 5), i64(1, 2, 2, 1)], {"mode": "reflect"}),
        ("Pad", [f32(4, 5), i64(1, 2, 2, 1)], {"mode": "edge"}),
        ("Pad", [f32(4, 5), i64(-1, 2, 0, -1)], {}),
        ("Range", [np.float32(1), np.float32(9),
                   np.float32(2.5)], {}),
        ("Shape", [f32(2, 3, 4)], {"start": 1}),
        ("Size", [f32(2, 3)], {}),
        ("ConstantOfShape", [i64(2, 3)], {}),
        ("EyeLike", [f32(3, 4)], {"k": 1}),
        ("Trilu", [f32(3, 4), np.array(1, np.int64)], {"upper": 0}),
        ("DepthToSpace", [f32(1, 8, 2, 3)], {"blocksize": 2}),
        ("DepthToSpace", [f32(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}),
        ("SpaceToDepth", [f32(1, 2, 4, 6)], {"blocksize": 2}),
        ("ReverseSequence", [f32(4, 3, 2), i64(2, 4, 1)], {}),
        ("Gather", [f32(4, 3), np.array([[0, -1], [2, 1]], np.int64)], {"axis": 0}),
        ("Gather", [f32(4, 3), np.array(1, np.int32)], {"axis": 1}),
        ("GatherElements", [f32(3, 3), i64([0, 1, -1], [2, 0, 0])], {"axis": 0}),
        ("GatherND", [f32(2, 3, 4), i64([[0, 1], [1, 2]])], {}),
        ("GatherND", [f32(2, 3, 4), i64([1], [-1])], {"batch_dims": 1}),
        ("ScatterElements", [f32(3, 3), i64([0, 2, 1]), f32(1, 3)], {"axis": 0}),
        ("ScatterElements", [f32(3, 3), i64([1, 1, 1]), f32(1, 3)],
         {"axis": 1, "reduction": "add"}),
        ("ScatterND", [f32(4, 3), i64([1], [3]), f32(2, 3)], {}),
        ("ScatterND", [f32(4, 3), i64([1], [1]), f32(2, 3)], {"reduction": "max"}),
        ("OneHot", [i64(0, 5, -1), np.array(4, np.int64), f32(2)], {"axis": 0}),
        ("Compress", [f32(3, 4), np.array([True, False, True])], {"axis": 0}),
        ("NonZero", [np.array([[1, 0], [0, 2]], np.int32)], {}),
    ],
)  # fmt: skip
def test_shapes_and_indices(agrees: Agrees, op: str, inputs: Any, attributes: Any) -> None:
    agrees(op, *inputs, **attributes)


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_takes_the_first_of_equals(agrees: Agrees, largest: int) -> None:
    x = np.array([[3, 1, 3, 2, 1, 3]], np.float32)
    agrees("TopK", x, i64(4), outputs=2, largest=largest)
    agrees("TopK", f32(3, 5, 2), i64(2), outputs=2, largest=largest, axis=1)


def test_unique_in_order_of_appearance(agrees: Agrees) -> None:
    x = np.array([2, 1, 1, 3, 4, 3], np.float32)
    agrees("Unique", x, outputs=4, sorted=0)
    agrees("Unique", x.reshape(3, 2), outputs=4, axis=0)


def test_split_before_and_after_opset_13(agrees: Agrees) -> None:
    agrees("Split", f32(2, 7), outputs=3, num_outputs=3, axis=1)
    agrees("Split", f32(2, 7), i64(3, 4), outputs=2, axis=1)
    agrees("Split", f32(2, 6), outputs=3, axis=1, opset=11)
    agrees("Split", f32(2, 7), outputs=2, axis=1, split=[2, 5], opset=11)


FLOATS = np.array([-300.7, -1.5, -0.5, 0, 0.5, 1.5, 90.9], np.float32)


@pytest.mark.parametrize("to", [1, 6, 7, 9, 10, 11])
def test_cast_from_float(agrees: Agrees, to: int) -> None:
    agrees("Cast", FLOATS, to=to)


@pytest.mark.parametrize("x", [np.array([0, 3], np.uint8), np.array([True, False])])
def test_cast_to_float(agrees: Agrees, x: np.ndarray) -> None:
    agrees("Cast", x, to=1)


RESIZED: list[tuple[list[Any], dict[str, Any]]] = [
    ([None, np.array([1, 1, 2, 2.5], np.float32)], {"mode": m, "coordinate_transformation_mode": c})
    for m in ("nearest", "linear", "cubic")
    for c in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
] + [
    ([None, None, i64(1, 2, 3, 9)], {"mode": "linear"}),
    ([None, None, i64(1, 2, 3, 2)], {"mode": "linear", "antialias": 1}),
    ([None, None, i64(1, 2, 3, 2)], {"mode": "cubic", "antialias": 1, "cubic_coeff_a": -0.5}),
    ([None, np.array([1, 1, 0.6, 0.6], np.float32)], {"mode": "cubic", "exclude_outside": 1}),
    ([None, np.array([1, 1, 2, 3], np.float32)], {"nearest_mode": "floor"}),
    ([None, np.array([1, 1, 2, 3], np.float32)], {"nearest_mode": "ceil"}),
    ([None, np.array([1, 1, 0.5, 2], np.float32)], {"nearest_mode": "round_prefer_ceil"}),
    ([np.array([0, 0, 0.2, 0.1, 1, 1, 0.9, 1.3], np.float32), None, i64(1, 2, 4, 4)],
     {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize",
      "extrapolation_value": 9.0}),
]  # fmt: skip


@pytest.mark.parametrize(("more", "attributes"), RESIZED)
def test_resize(agrees: Agrees, more: list[Any], attributes: dict[str, Any]) -> None:
    agrees("Resize", f32(1, 2, 5, 6), *more, **attributes, atol=1e-5)


def test_resize_of_bytes(agrees: Agrees) -> None:
    x = np.arange(0, 240, 8, dtype=np.uint8).reshape(1, 1, 5, 6)
    agrees("Resize", x, None, np.array([1, 1, 2, 2], np.float32), mode="linear", rtol=0, atol=0)


def test_upsample(agrees: Agrees) -> None:
    agrees("Upsample", f32(1, 2, 3, 4), np.array([1, 1, 2, 3], np.float32), opset=9)
    agrees("Resize", f32(1, 2, 3, 4), np.array([1, 1, 2, 2], np.float32), opset=10, mode="linear")


def test_non_max_suppression(agrees: Agrees, rng: Any) -> None:
    boxes = np.sort(rng.uniform(0, 1, (1, 20, 2, 2)).astype(np.float32), axis=2).reshape(1, 20, 4)
    scores = rng.uniform(0, 1, (1, 2, 20)).astype(np.float32)
    four, third = np.array([4]), np.array([0.3], np.float32)
    agrees("NonMaxSuppression", boxes, scores, four, None, third)
    agrees("NonMaxSuppression", boxes, scores, four, third, center_point_box=1)


def test_batch_normalization_with_unused_statistics(agrees: Agrees) -> None:
    """Older exporters declare all five outputs of an inference node and use the first."""
    inputs = (f32(2, 3, 4), f32(3), f32(3, seed=2), f32(3, seed=3), positive(3))
    node = ir.node("BatchNormalization", [ir.val(n) for n in "xsbmv"], num_outputs=5)
    y = run_node(node, inputs, 9)[0]
    x, scale, bias, mean, var = (a.reshape(-1, 1) if a.ndim == 1 else a for a in inputs)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * scale + bias, rtol=1e-5)
