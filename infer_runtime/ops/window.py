"""Sliding windows of convolution and pooling: geometry, padding, one strided view for each tap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.arrays import check_room

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from infer_runtime.arrays import Array


@dataclass(frozen=True)
class Window:
    """Where a kernel sits over its input; one number for each spatial axis.

    `ends` covers the last window, so with ceil_mode it can exceed the padding of the node.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    out: tuple[int, ...]

    def pad(self, x: Array, value: float = 0) -> Array:
        """`x` with its spatial axes padded; `x` itself when there is nothing to pad."""
        return pad_spatial(x, self.begins, self.ends, value)

    def taps(self, padded: Array) -> Iterator[Array]:
        """For each kernel position, in row-major order, the inputs that it meets."""
        for position in product(*(range(k) for k in self.kernel)):
            yield padded[self._tap(position)]

    def tap(self, padded: Array, number: int) -> Array:
        """What the kernel position of this number meets."""
        return padded[self._tap(np.unravel_index(number, self.kernel))]  # type: ignore[arg-type]

    def _tap(self, position: Sequence[int]) -> Any:
        return ..., *(
            slice(p * d, p * d + (n - 1) * s + 1, s)
            for p, d, n, s in zip(position, self.dilations, self.out, self.strides, strict=True)
        )


def window(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Window:
    """The geometry of a convolution or pooling over spatial axes of the given sizes.

    Follows the ONNX specification of Conv and MaxPool; with ceil_mode a last window that would
    start in the end padding is dropped.

    Raises:
        ValueError: the kernel does not fit into the padded input.

    """
    return _window(
        tuple(size),
        tuple(kernel),
        None if strides is None else tuple(strides),
        None if dilations is None else tuple(dilations),
        None if pads is None else tuple(pads),
        auto_pad,
        ceil_mode,
    )


@lru_cache(maxsize=4096)
def _window(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...] | None,
    dilations: tuple[int, ...] | None,
    pads: tuple[int, ...] | None,
    auto_pad: str,
    ceil_mode: int,
) -> Window:
    """The same; a model meets the same geometry on every run."""
    rank = len(size)
    strides = tuple(strides or [1] * rank)
    dilations = tuple(dilations or [1] * rank)
    pads = tuple(pads or [0] * (2 * rank)) if auto_pad == "NOTSET" else (0,) * (2 * rank)
    lengths = {len(kernel), len(strides), len(dilations), len(pads) // 2, rank}
    if len(lengths) != 1 or min((*kernel, *strides, *dilations), default=1) < 1:
        raise ValueError(
            f"kernel {list(kernel)}, strides {list(strides)}, dilations {list(dilations)} and pads "
            f"{list(pads)} do not fit {rank} spatial axes"
        )
    begins, ends, out = [], [], []
    for i, n in enumerate(size):
        span = (kernel[i] - 1) * dilations[i] + 1
        if auto_pad.startswith("SAME"):
            count = -(-n // strides[i])
            begin, end = _same(n, span, strides[i], count, auto_pad == "SAME_UPPER")
        else:
            begin, end = pads[i], pads[i + rank]
            count = _count(n, begin, end, span, strides[i], bool(ceil_mode))
        begins.append(begin)
        ends.append(max(end, (count - 1) * strides[i] + span - n - begin))
        out.append(count)
    check_room(out, 1)
    return Window(tuple(kernel), strides, dilations, tuple(begins), tuple(ends), tuple(out))


def _same(n: int, span: int, stride: int, count: int, upper: bool) -> tuple[int, int]:
    total = max((count - 1) * stride + span - n, 0)
    less, more = total // 2, total - total // 2
    return (less, more) if upper else (more, less)


def _count(n: int, begin: int, end: int, span: int, stride: int, ceil: bool) -> int:
    room = n + begin + end - span
    if room < 0:
        raise ValueError(f"a kernel that spans {span} does not fit into {n} + pads {begin}, {end}")
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= n + begin else count


def pad_spatial(x: Array, begins: Sequence[int], ends: Sequence[int], value: float = 0) -> Array:
    """Pad the last axes of `x` with a value; negative amounts crop."""
    if not any(begins) and not any(ends):
        return x
    lead = x.ndim - len(begins)
    shape, target, source = _padding(x.shape[lead:], tuple(begins), tuple(ends))
    check_room((*x.shape[:lead], *shape), x.itemsize)
    padded = np.full((*x.shape[:lead], *shape), value, x.dtype)
    padded[target] = x[source]
    return padded


@lru_cache(maxsize=4096)
def _padding(size: tuple[int, ...], begins: tuple[int, ...], ends: tuple[int, ...]) -> Any:
    """The padded sizes, where the old values go, and which of them."""
    edges = list(zip(size, begins, ends, strict=True))
    target = [slice(max(b, 0), n + b + min(e, 0)) for n, b, e in edges]
    source = [slice(max(-b, 0), n + min(e, 0)) for n, b, e in edges]
    return [n + b + e for n, b, e in edges], (..., *target), (..., *source)
