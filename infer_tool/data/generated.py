"""Samples that a user's function yields, one at a time."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import InferError, UsageError
from infer_tool.data.checks import check_labels, check_names, check_sample
from infer_tool.reason import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from infer_runtime import TensorInfo

    Array = np.ndarray[Any, Any]

END = object()


class GeneratedSamples:
    """Samples of a function that can be called again; none is kept.

    Samples are read in ascending order, as a `Dataset` does: each costs one step of the function's
    iterator, and going back calls the function anew.
    """

    def __init__(
        self, spec: str, function: Callable[[], Any], inputs: Sequence[TensorInfo]
    ) -> None:
        self._spec, self._function, self._inputs = spec, function, tuple(inputs)
        self._items: Iterator[Any] = iter(())
        self._next = 0
        labels = [self._label(item) for item in self._start()]
        self._count = len(labels)
        if not labels:
            raise UsageError(f"{spec}: yields 0 samples")
        self.labels = self._checked_labels(labels)

    def __len__(self) -> int:
        """Number of samples that the function yielded when it was opened."""
        return self._count

    def read(self, index: int) -> dict[str, Array]:
        """Sample `index`; the ones before it are stepped over."""
        if index < self._next or self._next == 0:
            self._items, self._next = self._start(), 0
        for item in self._items:
            self._next += 1
            if self._next > index:
                return self._feeds(item)
        raise UsageError(f"{self._spec}: yields fewer samples than it did before")

    def _start(self) -> Iterator[Any]:
        with self._user_code():
            items = iter(self._function())
        while True:
            with self._user_code():
                item = next(items, END)
            if item is END:
                return
            yield item

    @contextlib.contextmanager
    def _user_code(self) -> Iterator[None]:
        """Whatever it raises is the answer; what it prints leaves stdout alone."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except InferError:
            raise
        except Exception as error:
            # Any class can come out of code that is not ours.
            raise UsageError(f"{self._spec}: failed: {reason(error)}") from error

    def _feeds(self, item: Any) -> dict[str, Array]:
        feeds = item[0] if isinstance(item, tuple) else item
        if not isinstance(feeds, dict):
            raise UsageError(
                f"{self._spec}: yields {type(feeds).__name__}, expected a dict of arrays"
            )
        check_names(self._spec, feeds, self._inputs)
        return {
            i.name: check_sample(self._spec, i, np.asarray(feeds[i.name])) for i in self._inputs
        }

    def _label(self, item: Any) -> Any:
        """The label of an item whose feeds are right."""
        self._feeds(item)
        return item[1] if isinstance(item, tuple) else None

    def _checked_labels(self, labels: list[Any]) -> Array | None:
        if all(label is None for label in labels):
            return None
        if any(label is None for label in labels):
            raise UsageError(f"{self._spec}: yields some samples with and some without a label")
        return check_labels(self._spec, np.asarray(labels), len(labels))
