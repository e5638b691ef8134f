"""Samples that a user's function yields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError
from infer_tool.data.arrays import ArraySamples
from infer_tool.data.checks import check_labels, check_names, check_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from infer_runtime import TensorInfo


def from_function(
    spec: str, function: Callable[[], Any], inputs: Sequence[TensorInfo]
) -> ArraySamples:
    """Call the function: it yields feeds, or (feeds, label), one sample each without batch axis."""
    rows: list[dict[str, Any]] = []
    labels: list[Any] = []
    for item in function():
        feeds, label = item if isinstance(item, tuple) else (item, None)
        if not isinstance(feeds, dict):
            raise UsageError(f"{spec}: yields {type(feeds).__name__}, expected a dict of arrays")
        check_names(spec, feeds, inputs)
        rows.append({i.name: check_sample(spec, i, np.asarray(feeds[i.name])) for i in inputs})
        if label is not None:
            labels.append(label)
    if not rows:
        raise UsageError(f"{spec}: yields 0 samples")
    arrays = {i.name: np.stack([row[i.name] for row in rows]) for i in inputs}
    found = check_labels(spec, np.asarray(labels), len(rows)) if labels else None
    return ArraySamples(arrays, found)
