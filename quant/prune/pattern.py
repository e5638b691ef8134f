"""N:M sparsity: of M neighbouring input channels N are kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

LARGEST_GROUP = 32


@dataclass(frozen=True)
class Pattern:
    """Of each `group` of input channels `kept` stay, for each output and tap on their own."""

    kept: int
    group: int

    def __str__(self) -> str:
        """As it is given on the command line."""
        return f"{self.kept}:{self.group}"

    def mask(self, scores: Array, axis: int) -> Array:
        """Where the largest scores of each group are; of equal ones the first."""
        last = np.moveaxis(scores, axis, -1)
        groups = last.reshape(*last.shape[:-1], -1, self.group)
        order = np.argsort(-groups, axis=-1, kind="stable")
        mask = np.zeros(groups.shape, bool)
        np.put_along_axis(mask, order[..., : self.kept], values=True, axis=-1)
        return np.moveaxis(mask.reshape(last.shape), -1, axis)

    def at(self, share: float) -> Pattern:
        """What is left after a share (0 to 1) of what goes has gone."""
        gone = round(share * (self.group - self.kept))
        return Pattern(self.group - max(1, gone), self.group)


def parse_pattern(text: str) -> Pattern:
    """'2:4' as N = 2 of M = 4.

    Raises:
        UsageError: it is no pattern, or one that keeps all or nothing.

    """
    match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text)
    kept, group = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < kept < group <= LARGEST_GROUP:
        raise UsageError(
            f"--pattern {text}: expected N:M with 0 < N < M <= {LARGEST_GROUP}, e.g. 2:4"
        )
    return Pattern(kept, group)
