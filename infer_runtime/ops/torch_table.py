"""What torch computes by functions of its own: windows, attention, and where they have no standard.

Registered beside the NumPy kernels of the same operators; gradients are torch's.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.ops import cast
from infer_runtime.ops.conv import transposed_geometry
from infer_runtime.ops.pool import counts
from infer_runtime.ops.window import Window, window
from infer_runtime.registry import op
from infer_runtime.torch_library import through_numpy, torch_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLAIN = {ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.UINT8}
_RANKS = (1, 2, 3)  # spatial axes that torch convolves over


@op("Cast", since=6, library="torch")
def Cast(x: Any, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    """Between the types that torch has; others, and text, go through NumPy."""
    kind = ir.DataType(to)
    has_rounding_of_its_own = kind.bitwidth < 16 and kind not in _PLAIN
    dtype = None if has_rounding_of_its_own else torch_dtype(kind.numpy())
    if dtype is None or isinstance(x, np.ndarray):
        by_numpy = partial(cast.Cast, to=to, saturate=saturate, round_mode=round_mode)
        return through_numpy(by_numpy, "Cast")(x)
    return x.to(dtype)


@op("CastLike", since=15, library="torch")
def CastLike(x: Any, like: Any, *, saturate: int = 1, round_mode: str = "up") -> Any:
    """Cast to the type of the second input."""
    if isinstance(like, np.ndarray):
        return Cast(x, to=ir.DataType.STRING, saturate=saturate, round_mode=round_mode)
    return x.to(like.dtype)


@op("Relu", library="torch")
def Relu(X: Any) -> Any:
    """max(x, 0) in one kernel, and one for its gradient, which is 0 at 0."""
    import torch

    return torch.nn.functional.relu(X)


def _padded(x: Any, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> Any:
    """Pad (or, with negative amounts, crop) the spatial axes; torch counts from the last one."""
    import torch

    if not any(begins) and not any(ends):
        return x
    pairs = zip(reversed(begins), reversed(ends), strict=True)
    return torch.nn.functional.pad(x, [n for pair in pairs for n in pair], value=value)


def _of_rank(name: str, rank: int) -> Any:
    import torch

    if rank not in _RANKS:
        raise ValueError(f"torch has no {name} over {rank} axes")
    return getattr(torch.nn.functional, f"{name}{rank}d")


@op("Conv", library="torch")
def Conv(
    X: Any,
    W: Any,
    B: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    """Cross-correlation; see the NumPy kernel."""
    del kernel_shape
    where = window(
        X.shape[2:], W.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad
    )
    convolve = _of_rank("conv", X.ndim - 2)
    if where.begins == where.ends and min(where.begins, default=0) >= 0:
        return convolve(X, W, B, where.strides, where.begins, where.dilations, group)
    x = _padded(X, where.begins, where.ends)
    return convolve(x, W, B, where.strides, 0, where.dilations, group)


@op("ConvTranspose", library="torch")
def ConvTranspose(
    X: Any,
    W: Any,
    B: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    """The transpose of Conv; see the NumPy kernel."""
    del kernel_shape
    where, extra = transposed_geometry(
        X.shape[2:], W.shape[2:], strides, dilations, pads, auto_pad, output_padding, output_shape
    )
    convolve = _of_rank("conv_transpose", X.ndim - 2)
    y = convolve(X, W, None, where.strides, 0, 0, group, where.dilations)
    ends = [e - n for e, n in zip(extra, where.ends, strict=True)]
    y = _padded(y, [-b for b in where.begins], ends)
    return y if B is None else y + B.reshape(1, -1, *[1] * (X.ndim - 2))


def _pool_window(X: Any, kernel_shape: Sequence[int], geometry: dict[str, Any]) -> Window:
    return window(X.shape[2:], kernel_shape, **geometry)


@op("MaxPool", library="torch")
def MaxPool(
    X: Any,
    *,
    kernel_shape: Sequence[int],
    n_outputs: int = 1,
    storage_order: int = 0,
    **geometry: Any,
) -> Any:
    """Maximum of each window; the positions have no torch kernel."""
    del storage_order
    if n_outputs > 1:
        raise ValueError("the positions of MaxPool have no kernel for tensors")
    where = _pool_window(X, kernel_shape, geometry)
    x = _padded(X, where.begins, where.ends, -math.inf)
    pool = _of_rank("max_pool", X.ndim - 2)
    y = pool(x, where.kernel, where.strides, 0, where.dilations)
    return y[(..., *(slice(n) for n in where.out))]


@op("AveragePool", library="torch")
def AveragePool(
    X: Any, *, kernel_shape: Sequence[int], count_include_pad: int = 0, **geometry: Any
) -> Any:
    """Mean of each window: the sum by a convolution of ones, over the number that counts."""
    import torch

    where = _pool_window(X, kernel_shape, geometry)
    total = _summed(X, where)
    counted = counts(
        X.shape[2:],
        where,
        geometry.get("pads"),
        geometry.get("auto_pad", "NOTSET"),
        bool(count_include_pad),
    )
    return total / torch.as_tensor(counted, dtype=total.dtype, device=total.device)


@op("LpPool", since=2, library="torch")
def LpPool(X: Any, *, kernel_shape: Sequence[int], p: int = 2, **geometry: Any) -> Any:
    """The p-norm of each window."""
    return _summed(X.abs() ** p, _pool_window(X, kernel_shape, geometry)) ** (1 / p)


def _summed(X: Any, where: Window) -> Any:
    """The sum of each window, channel by channel."""
    convolve = _of_rank("conv", X.ndim - 2)
    planes = _padded(X, where.begins, where.ends).flatten(0, 1)[:, None]
    ones = X.new_ones((1, 1, *where.kernel))
    y = convolve(planes, ones, None, where.strides, 0, where.dilations)
    return y.reshape(*X.shape[:2], *y.shape[2:])
