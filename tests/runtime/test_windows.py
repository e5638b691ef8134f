"""Convolution and pooling against ONNX Runtime: geometry, groups, ranks, types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from infer_runtime.ops.window import window

if TYPE_CHECKING:
    from collections.abc import Callable

CONVS: list[tuple[Any, Any, dict[str, Any]]] = [
    ((2, 3, 9, 9), (4, 3, 3, 3), {}),
    ((1, 3, 9, 8), (4, 3, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ((1, 3, 9, 9), (4, 3, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    ((2, 4, 5, 5), (6, 4, 1, 1), {}),
    ((2, 4, 5, 5), (6, 2, 1, 1), {"group": 2, "pads": [1, 1, 1, 1]}),
    ((2, 4, 5, 5), (6, 4, 1, 1), {"strides": [2, 2]}),
    ((1, 6, 7, 7), (6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    ((1, 6, 7, 7), (6, 1, 5, 5), {"group": 6, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((2, 3, 7, 7), (6, 1, 3, 3), {"group": 3}),  # two outputs for each channel
    ((1, 6, 7, 7), (4, 3, 3, 3), {"group": 2}),
    ((1, 3, 8, 8), (2, 3, 3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    ((1, 3, 8, 8), (2, 3, 3, 3), {"auto_pad": "VALID"}),
    ((2, 3, 17), (4, 3, 5), {"pads": [2, 2], "strides": [2]}),
    ((2, 4, 17), (4, 1, 5), {"group": 4}),
    ((1, 2, 5, 6, 7), (3, 2, 3, 2, 3), {"pads": [1, 0, 1, 1, 1, 1]}),
    ((1, 64, 40, 40), (8, 64, 5, 5), {"pads": [2, 2, 2, 2]}),  # more than one block of rows
    ((1, 40, 64, 64), (40, 1, 3, 3), {"group": 40}),  # more than one block of channels
]


@pytest.mark.parametrize(("x", "w", "attributes"), CONVS)
def test_conv(agrees: Callable[..., None], rng: Any, x: Any, w: Any, attributes: Any) -> None:
    given = [(rng.normal(size=s) + 0.3).astype(np.float32) for s in (x, w, w[:1])]
    agrees("Conv", *given, **attributes, rtol=1e-5, atol=2e-5)


TRANSPOSED: list[tuple[Any, Any, dict[str, Any]]] = [
    ((1, 3, 5, 5), (3, 4, 3, 3), {}),
    ((2, 4, 5, 5), (4, 3, 3, 2), {"strides": [2, 3], "pads": [1, 0, 0, 1], "group": 2}),
    ((1, 3, 5, 5), (3, 4, 3, 3), {"strides": [2, 2], "output_padding": [1, 1]}),
    ((1, 3, 5, 5), (3, 4, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 3, 5, 5), (3, 4, 3, 3), {"strides": [3, 2], "output_shape": [14, 10]}),
    ((1, 3, 5, 5), (3, 4, 3, 3), {"dilations": [2, 2]}),
    ((2, 3, 7), (3, 2, 4), {"strides": [2], "pads": [1, 1]}),
    ((1, 2, 3, 4, 5), (2, 2, 2, 2, 2), {"strides": [2, 2, 2]}),
]


@pytest.mark.parametrize(("x", "w", "attributes"), TRANSPOSED)
def test_conv_transpose(
    agrees: Callable[..., None], rng: Any, x: Any, w: Any, attributes: Any
) -> None:
    channels = w[1] * attributes.get("group", 1)
    given = [rng.normal(size=s).astype(np.float32) for s in (x, w, (channels,))]
    agrees("ConvTranspose", *given, **attributes, rtol=1e-5, atol=1e-5)


POOLS: list[tuple[Any, dict[str, Any]]] = [
    ((2, 3, 9, 9), {"kernel_shape": [3, 3]}),
    ((2, 3, 9, 8), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    ((2, 3, 10, 10), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ((1, 2, 7, 7), {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1],
                    "ceil_mode": 1}),
    ((1, 2, 9, 9), {"kernel_shape": [2, 3], "dilations": [2, 2]}),
    ((1, 2, 9, 9), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 9, 9), {"kernel_shape": [4, 4], "strides": [3, 3], "auto_pad": "SAME_LOWER"}),
    ((2, 3, 11), {"kernel_shape": [3], "strides": [2]}),
    ((1, 2, 5, 6, 7), {"kernel_shape": [2, 2, 3], "strides": [1, 2, 2]}),
]  # fmt: skip


@pytest.mark.parametrize(("x", "attributes"), POOLS)
def test_max_pool(agrees: Callable[..., None], rng: Any, x: Any, attributes: Any) -> None:
    given = (rng.normal(size=x) - 3).astype(np.float32)
    agrees("MaxPool", given, **attributes, rtol=0, atol=0)
    agrees("MaxPool", given, **attributes, outputs=2, rtol=0, atol=0)
    agrees("MaxPool", (given * 20).astype(np.int8), **attributes, rtol=0, atol=0)


@pytest.mark.parametrize("count_include_pad", [0, 1])
@pytest.mark.parametrize(("x", "attributes"), POOLS)
def test_average_pool(
    agrees: Callable[..., None], rng: Any, x: Any, attributes: Any, count_include_pad: int
) -> None:
    given = (rng.normal(size=x) + 3).astype(np.float32)
    agrees("AveragePool", given, **attributes, count_include_pad=count_include_pad)


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_global_pools_of_every_rank(
    agrees: Callable[..., None], rng: Any, op: str, shape: Any
) -> None:
    agrees(op, rng.normal(size=shape).astype(np.float32))


def test_float16_is_summed_in_float32(agrees: Callable[..., None], rng: Any) -> None:
    x = rng.normal(size=(1, 64, 9, 9)).astype(np.float16)
    w = rng.normal(size=(8, 64, 3, 3)).astype(np.float16)
    agrees("Conv", x, w, rtol=2e-3, atol=2e-2)  # one rounding to float16 of values near 24


def test_a_kernel_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="spans 5 does not fit into 3"):
        window((3,), (5,), pads=[0, 0])
