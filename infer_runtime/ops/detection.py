"""Non-maximum suppression of boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.registry import op

if TYPE_CHECKING:
    from infer_runtime.arrays import Array


@op("NonMaxSuppression", since=10)
def NonMaxSuppression(
    boxes: Array,
    scores: Array,
    max_output_boxes_per_class: Array | None = None,
    iou_threshold: Array | None = None,
    score_threshold: Array | None = None,
    *,
    center_point_box: int = 0,
) -> Array:
    """Greedy by score, for each batch and class: rows of (batch, class, box).

    boxes [batches, boxes, 4], scores [batches, classes, boxes].
    """
    limit = (
        0 if max_output_boxes_per_class is None else int(max_output_boxes_per_class.reshape(-1)[0])
    )
    overlap = 0.0 if iou_threshold is None else float(iou_threshold.reshape(-1)[0])
    least = -np.inf if score_threshold is None else float(score_threshold.reshape(-1)[0])
    rows: list[tuple[int, int, int]] = []
    for batch, c in np.ndindex(*scores.shape[:2]):
        corners = _corners(boxes[batch], center_point_box)
        kept = _greedy(corners, scores[batch, c], limit, overlap, least)
        rows += [(batch, c, box) for box in kept]
    return np.array(rows, np.int64).reshape(-1, 3)


def _corners(boxes: Array, center: int) -> Array:
    """Lower corner, then upper corner, whichever way the model gives them."""
    if center:
        middle, half = boxes[:, :2], boxes[:, 2:] / 2
        return np.concatenate([middle - half, middle + half], axis=1)
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    return np.concatenate([low, high], axis=1)


def _greedy(corners: Array, scores: Array, limit: int, overlap: float, least: float) -> list[int]:
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > least]
    kept: list[int] = []
    while order.size and len(kept) < limit:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        order = rest[_iou(corners[best], corners[rest]) <= overlap]
    return kept


def _iou(box: Array, others: Array) -> Array:
    """Area of the intersection over the area of the union; 0 for boxes without area."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - common
    ratio: Array = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return ratio
