"""A metric: how far the right class is ahead of the best wrong one, on average."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


def margin(outputs: Mapping[str, np.ndarray[Any, Any]], labels: np.ndarray[Any, Any]) -> float:
    """Larger is better; negative where the model is wrong more than it is right."""
    scores = next(iter(outputs.values())).astype(np.float64)
    rows = np.arange(len(scores))
    right = scores[rows, labels].copy()
    scores[rows, labels] = -np.inf
    return float(np.mean(right - scores.max(axis=1)))
