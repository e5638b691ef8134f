"""Accuracy and fidelity of a candidate against its source, streamed over batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from infer_runtime.errors import UsageError
from infer_tool.fidelity import Fidelity
from infer_tool.plugins import load_plugin, names
from infer_tool.report.model import Accuracy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Outputs = "Mapping[str, np.ndarray[Any, Any]]"
TOP_K = {"top1": 1, "top5": 5}
FIDELITY = ("agreement", "cosine", "sqnr", "max-abs")


class UserMetric(Protocol):
    """A user's `function(outputs, labels) -> float`, larger is better."""

    def __call__(self, outputs: Mapping[str, Any], labels: Any) -> float:
        """Score of all outputs against all labels."""
        ...


@dataclass
class Evaluation:
    """Sums over batches; memory does not grow with samples except for a user's metric."""

    metric: str
    engine: str
    user: UserMetric | None = None
    samples: int = 0
    hits: list[int] = field(default_factory=lambda: [0, 0])
    agreed: int | None = None  # stays None for outputs that are no class scores
    fidelity: Fidelity = field(default_factory=Fidelity)
    kept: list[tuple[Any, Any, Any]] = field(default_factory=list)

    def add(
        self,
        reference: Mapping[str, np.ndarray[Any, Any]],
        candidate: Mapping[str, np.ndarray[Any, Any]],
        labels: np.ndarray[Any, Any] | None,
    ) -> None:
        """Account for one batch of both models' outputs."""
        first = next(iter(reference))
        self.samples += len(reference[first])
        for name, value in reference.items():
            self.fidelity.add(value, candidate[name])
        self._add_classes(reference[first], candidate[first], labels)
        if self.user is not None:
            self.kept.append((dict(reference), dict(candidate), labels))

    def _add_classes(
        self, r: np.ndarray[Any, Any], c: np.ndarray[Any, Any], labels: np.ndarray[Any, Any] | None
    ) -> None:
        if not is_classifier(r):
            return
        self.agreed = (self.agreed or 0) + int(np.sum(r.argmax(1) == c.argmax(1)))
        if labels is not None and self.metric in TOP_K:
            k = TOP_K[self.metric]
            self.hits[0] += _hits(r, labels, k)
            self.hits[1] += _hits(c, labels, k)

    def result(self) -> Accuracy:
        """The figures over all batches."""
        reference, candidate = self._scores()
        drop = None if reference is None or candidate is None else reference - candidate
        if self.metric == "max-abs" and drop is not None:
            drop = -drop  # an error: smaller is better
        return Accuracy(
            metric=self.metric,
            reference=reference,
            candidate=candidate,
            drop=drop,
            samples=self.samples,
            agreement=self.agreement,
            sqnr_db=self.fidelity.sqnr_db,
            cosine=self.fidelity.cosine,
            max_abs_error=self.fidelity.max_abs_error,
            engine=self.engine,
        )

    def _scores(self) -> tuple[float | None, float | None]:
        if self.user is not None:
            return self._user_scores()
        if self.metric in TOP_K:
            return self.hits[0] / self.samples, self.hits[1] / self.samples
        if self.metric == "agreement":
            return 1.0, self.agreement
        if self.metric == "cosine":
            return 1.0, self.fidelity.cosine
        if self.metric == "max-abs":
            return 0.0, self.fidelity.max_abs_error
        return None, self.fidelity.sqnr_db

    def _user_scores(self) -> tuple[float, float]:
        assert self.user is not None
        labels = None
        if self.kept and self.kept[0][2] is not None:
            labels = np.concatenate([part[2] for part in self.kept])
        scores = []
        for side in (0, 1):
            names = self.kept[0][side]
            joined = {n: np.concatenate([part[side][n] for part in self.kept]) for n in names}
            scores.append(float(self.user(joined, labels)))
        return scores[0], scores[1]

    @property
    def agreement(self) -> float | None:
        """Share of the samples whose best class is the same; None without classes."""
        return None if self.agreed is None else self.agreed / self.samples


def choose_metric(
    name: str, output: np.ndarray[Any, Any], labels: np.ndarray[Any, Any] | None
) -> tuple[str, Callable[..., float] | None]:
    """Resolve `auto` and check that the metric fits; returns its name and a user's function."""
    if name == "auto":
        fits = labels is not None and labels.ndim == 1 and is_classifier(output)
        return ("top1" if fits else "cosine"), None
    if name in TOP_K or name == "agreement":
        if not is_classifier(output):
            raise UsageError(
                f"--metric {name}: the first output has shape {output.shape}; "
                "expected [samples, classes]"
            )
        if name in TOP_K and labels is None:
            raise UsageError(f"--metric {name}: the data has no labels; add an array 'labels'")
        return name, None
    if name in FIDELITY:
        return name, None
    if ":" in name:
        from infer_tool.data import load_function

        return name, load_function(name)
    if name in names("metrics"):
        return name, load_plugin("metrics", name)
    known = ", ".join(("auto", *TOP_K, *FIDELITY, *names("metrics"), "file.py:function"))
    raise UsageError(f"--metric {name!r}: expected one of {known}")


def is_classifier(output: np.ndarray[Any, Any]) -> bool:
    """Scores of at least two classes for each sample."""
    return output.ndim == 2 and output.shape[1] > 1


def check_labels(labels: np.ndarray[Any, Any], output: np.ndarray[Any, Any]) -> None:
    """UsageError for a label that is no class of the output."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= output.shape[1]:
        raise UsageError(
            f"labels range from {low} to {high}, but the model has {output.shape[1]} classes"
        )


def _hits(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], k: int) -> int:
    """How often the label is among the k best scores; ties go to the lower class."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return int(np.sum(best == labels.reshape(-1, 1)))
