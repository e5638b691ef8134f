"""Mean and deviation of the channels of values, over samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.torch_library import to_numpy, to_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infer_runtime import Session

    Array = np.ndarray[Any, Any]


def moments_of(
    session: Session, feeds: Sequence[Mapping[str, Array]], axes: Mapping[str, int]
) -> dict[str, tuple[Array, Array]]:
    """[channels] each, in double precision, of each named value along its axis."""
    sums: dict[str, Array] = dict.fromkeys(axes, np.zeros(()))
    for feed in feeds:
        # By torch, which is faster.
        found = session.run({n: to_tensor(x) for n, x in feed.items()}, list(axes))
        for name, axis in axes.items():
            value = to_numpy(found[name])
            rows = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1).astype(np.float64)
            sums[name] = sums[name] + [
                np.full(len(rows), rows.shape[1]),
                rows.sum(1),
                (rows**2).sum(1),
            ]
    return {name: _moments(*of) for name, of in sums.items()}


def _moments(count: Array, total: Array, square: Array) -> tuple[Array, Array]:
    mean = total / count
    return mean, np.sqrt(np.maximum(square / count - mean * mean, 0))
