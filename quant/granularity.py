"""How many scales a tensor has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PerTensor:
    """One scale: shape () for a tensor of any shape."""

    def reduce(self, function: np.ufunc, x: Array) -> Array:
        """Reduce the tensor to the shape of the scale."""
        return np.asarray(function.reduce(x, axis=None))

    def spread(self, scale: Array, x: Array) -> Array:
        """The scale in a shape that broadcasts against the tensor."""
        return scale.reshape((1,) * x.ndim)


@dataclass(frozen=True)
class PerAxis:
    """One scale for each index of an axis: shape (x.shape[axis],)."""

    axis: int

    def reduce(self, function: np.ufunc, x: Array) -> Array:
        """Reduce over every other axis."""
        others = tuple(i for i in range(x.ndim) if i != self.axis % x.ndim)
        return np.asarray(function.reduce(x, axis=others))

    def spread(self, scale: Array, x: Array) -> Array:
        """The scales along the axis."""
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return scale.reshape(shape)


@dataclass(frozen=True)
class PerBlock:
    """One scale for `size` neighbours along an axis: x.shape with ceil(x.shape[axis] / size)."""

    axis: int
    size: int

    def reduce(self, function: np.ufunc, x: Array) -> Array:
        """Reduce each block; the last one may be shorter."""
        starts = np.arange(0, x.shape[self.axis], self.size)
        return np.asarray(function.reduceat(x, starts, axis=self.axis))

    def spread(self, scale: Array, x: Array) -> Array:
        """Each scale as often as its block is long."""
        repeated = np.repeat(scale, self.size, axis=self.axis)
        return np.take(repeated, np.arange(x.shape[self.axis]), axis=self.axis)


Granularity = PerTensor | PerAxis | PerBlock
