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


Granularity = PerTensor | PerAxis
