"""Accuracy and fidelity, against computations by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from infer_runtime.errors import UsageError
from infer_tool.metrics import Evaluation, check_labels, choose_metric


def _evaluate(metric: str, batches: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]):
    evaluation = Evaluation(metric, "reference")
    for reference, candidate, labels in batches:
        evaluation.add({"y": reference}, {"y": candidate}, labels)
    return evaluation.result()


def test_top1_by_hand() -> None:
    reference = np.array([[3.0, 1, 2], [0, 5, 1], [1, 2, 9]])
    candidate = np.array([[3.0, 1, 2], [6, 5, 1], [1, 2, 9]])
    labels = np.array([0, 1, 0])
    result = _evaluate(
        "top1",
        [(reference[:2], candidate[:2], labels[:2]), (reference[2:], candidate[2:], labels[2:])],
    )
    assert result.reference == pytest.approx(2 / 3)
    assert result.candidate == pytest.approx(1 / 3)
    assert result.drop == pytest.approx(1 / 3)
    assert result.agreement == pytest.approx(2 / 3)
    assert result.samples == 3


def test_top5_counts_the_five_best() -> None:
    scores = np.arange(10.0)[None]
    assert _evaluate("top5", [(scores, scores, np.array([5]))]).reference == 1.0
    assert _evaluate("top5", [(scores, scores, np.array([4]))]).reference == 0.0


def test_sqnr_by_hand() -> None:
    reference = np.array([[3.0, 4.0]])
    candidate = np.array([[3.0, 4.5]])
    result = _evaluate("sqnr", [(reference, candidate, None)])
    assert result.sqnr_db == pytest.approx(10 * math.log10(25 / 0.25))
    assert result.max_abs_error == 0.5
    assert result.drop is None


def test_cosine_and_max_abs_drop() -> None:
    reference, candidate = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert _evaluate("cosine", [(reference, candidate, None)]).drop == pytest.approx(1.0)
    assert _evaluate("max-abs", [(reference, candidate, None)]).drop == pytest.approx(1.0)


def test_no_agreement_without_classes() -> None:
    maps = np.ones((2, 3, 4, 4))
    assert _evaluate("cosine", [(maps, maps, None)]).agreement is None


def test_nan_the_source_lacks_is_infinite_error() -> None:
    reference, candidate = np.ones((1, 2)), np.array([[1.0, np.nan]])
    result = _evaluate("cosine", [(reference, candidate, None)])
    assert result.max_abs_error == math.inf
    assert result.cosine == -1.0


def test_constant_zero_outputs() -> None:
    zeros = np.zeros((1, 2))
    assert _evaluate("cosine", [(zeros, zeros, None)]).cosine == 1.0
    assert _evaluate("cosine", [(zeros, zeros + 1, None)]).sqnr_db == -math.inf


def test_auto() -> None:
    labels = np.array([0])
    assert choose_metric("auto", np.zeros((1, 3)), labels)[0] == "top1"
    assert choose_metric("auto", np.zeros((1, 3)), None)[0] == "cosine"
    assert choose_metric("auto", np.zeros((1, 3, 4)), labels)[0] == "cosine"


@pytest.mark.parametrize(
    ("name", "shape", "labels", "message"),
    [
        ("top1", (1, 3), None, "no labels"),
        ("top1", (1, 3, 2), np.array([0]), "shape"),
        ("accuracy", (1, 3), np.array([0]), "expected one of"),
    ],
)
def test_metric_that_does_not_fit(name, shape, labels, message) -> None:
    with pytest.raises(UsageError, match=message):
        choose_metric(name, np.zeros(shape), labels)


def test_label_out_of_range() -> None:
    with pytest.raises(UsageError, match="from 0 to 3"):
        check_labels(np.array([0, 3]), np.zeros((2, 3)))
