"""A data set: indexed samples, batched on demand, split without overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from passes.feeds import random_feeds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from infer_runtime import TensorInfo

    Array = np.ndarray[Any, Any]
    Feeds = dict[str, Array]


class Samples(Protocol):
    """Where samples come from; each is read when it is asked for."""

    @property
    def labels(self) -> Array | None:
        """A class number for each sample, where there are any."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def read(self, index: int) -> Feeds:
        """One sample: an array without the batch axis for each input."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A selection of samples, in order."""

    samples: Samples
    order: Array

    def __len__(self) -> int:
        """Number of selected samples."""
        return len(self.order)

    @property
    def labels(self) -> Array | None:
        """Labels of the selected samples."""
        return None if self.samples.labels is None else self.samples.labels[self.order]

    def batches(self, size: int) -> Iterator[tuple[Feeds, Array | None]]:
        """Feeds of up to `size` samples, and their labels; nothing is kept."""
        for start in range(0, len(self.order), size):
            part = self.order[start : start + size]
            rows = [self.samples.read(int(index)) for index in part]
            feeds = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
            labels = None if self.samples.labels is None else self.samples.labels[part]
            yield feeds, labels

    def split(self, count: int, seed: int) -> tuple[Dataset, Dataset]:
        """`count` samples drawn by a seeded shuffle, and the others; both in their old order."""
        shuffled = np.random.default_rng(seed).permutation(len(self.order))
        first, second = np.sort(shuffled[:count]), np.sort(shuffled[count:])
        return replace(self, order=self.order[first]), replace(self, order=self.order[second])

    def subset(self, count: int) -> Dataset:
        """The first `count` samples."""
        return replace(self, order=self.order[:count])


def whole(samples: Samples) -> Dataset:
    """All samples."""
    return Dataset(samples, np.arange(len(samples)))


@dataclass(frozen=True)
class _Synthetic:
    inputs: Sequence[TensorInfo]
    count: int
    seed: int
    labels: None = None

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Feeds:
        feeds = random_feeds(self.inputs, self.seed + index)
        return {name: value[0] for name, value in feeds.items()}


def synthetic_dataset(inputs: Sequence[TensorInfo], count: int, seed: int) -> Dataset:
    """Random samples; what is calibrated on them is a guess."""
    return whole(_Synthetic(inputs, count, seed))
