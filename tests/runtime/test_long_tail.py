"""Operators without a kernel of ours run on the definitions of the onnx package, or are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import run_node
from infer_runtime.errors import KernelError, UnsupportedOpError
from infer_runtime.registry import find_kernel

if TYPE_CHECKING:
    from collections.abc import Callable


def test_grid_sample(agrees: Callable[..., None], rng: Any) -> None:
    assert find_kernel("", "GridSample", 20) is None
    x = rng.normal(size=(1, 2, 5, 5)).astype(np.float32)
    grid = rng.uniform(-1, 1, (1, 3, 4, 2)).astype(np.float32)
    agrees("GridSample", x, grid, mode="linear", atol=1e-5)


def test_the_same_value_twice() -> None:
    x = ir.val("x", ir.DataType.STRING, (1,))
    (y,) = run_node(ir.node("StringConcat", [x, x]), [np.array(["ab"], object)] * 2, 20)
    assert y.dtype == object
    assert y.tolist() == ["abab"]


def test_what_has_a_kernel_is_never_delegated_in_an_old_version() -> None:
    node = ir.node("BatchNormalization", [ir.val(n) for n in "xsbmv"], name="bn")
    with pytest.raises(KernelError, match=r"node bn \(BatchNormalization\).*before opset 7"):
        run_node(node, [np.ones(3, np.float32)] * 5, 6)


def test_contrib_operators_are_refused() -> None:
    node = ir.node("FusedConv", [ir.val("x")], domain="com.microsoft", name="f")
    with pytest.raises(UnsupportedOpError, match=r"com\.microsoft::FusedConv .*node f"):
        run_node(node, [np.ones(3, np.float32)], 1)
