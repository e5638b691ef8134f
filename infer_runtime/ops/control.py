"""Control flow. A subgraph arrives as a function from its inputs to a tuple of its outputs."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_runtime.arrays import Array


class Subgraph(Protocol):
    """A graph inside a node, as a function."""

    empty_outputs: tuple[Any, ...]  # each output, stacked over no iterations

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """The outputs for these inputs."""


@op("If")
def If(cond: Array, *, then_branch: Subgraph, else_branch: Subgraph) -> tuple[Any, ...]:
    """The branch that the condition names."""
    return then_branch() if bool(cond.reshape(-1)[0]) else else_branch()


@op("Loop")
def Loop(M: Array | None, cond: Array | None, *carried: Any, body: Subgraph) -> tuple[Any, ...]:
    """Run the body at most M times while its condition holds.

    The body maps (iteration, condition, carried...) to (condition, carried..., scanned...);
    scanned values are stacked over the iterations.
    """
    limit = None if M is None else int(M.reshape(-1)[0])
    going = np.array(True) if cond is None else cond.reshape(())
    state, scanned = tuple(carried), []
    for i in count():
        if (limit is not None and i >= limit) or not bool(going.reshape(-1)[0]):
            break
        results = body(np.array(i, np.int64), going, *state)
        going, state = results[0], results[1 : 1 + len(carried)]
        scanned.append(results[1 + len(carried) :])
    return *state, *_stacked(scanned, body.empty_outputs[1 + len(carried) :])


def _stacked(rows: list[tuple[Any, ...]], empty: tuple[Any, ...]) -> tuple[Any, ...]:
    """The scanned values of all iterations; of none, empty arrays as the body declares them."""
    return tuple(np.stack(column) for column in zip(*rows, strict=True)) if rows else empty


@op("Scan", since=9)
def Scan(
    *inputs: Any,
    body: Subgraph,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
) -> tuple[Any, ...]:
    """Feed slices of the last `num_scan_inputs` inputs to the body, stack what it yields."""
    states = len(inputs) - num_scan_inputs
    state, sequences = inputs[:states], list(inputs[states:])
    for i, axis in enumerate(scan_input_axes or [0] * num_scan_inputs):
        sequences[i] = np.moveaxis(sequences[i], axis, 0)
    for i, backward in enumerate(scan_input_directions or ()):
        sequences[i] = sequences[i][::-1] if backward else sequences[i]
    scanned = []
    for t in range(len(sequences[0])):
        results = body(*state, *(np.asarray(s[t]) for s in sequences))
        state = results[:states]
        scanned.append(results[states:])
    outputs = list(_stacked(scanned, body.empty_outputs[states:]))
    for i, backward in enumerate(scan_output_directions or ()):
        outputs[i] = outputs[i][::-1] if backward else outputs[i]
    for i, axis in enumerate(scan_output_axes or ()):
        outputs[i] = np.moveaxis(outputs[i], 0, axis)
    return *state, *outputs


@op("SequenceMap", since=17)
def SequenceMap(sequence: list[Any], *others: Any, body: Subgraph) -> tuple[list[Any], ...]:
    """Apply the body to each element; other sequences go along, tensors are shared."""
    rows = [
        body(first, *(o[i] if isinstance(o, list) else o for o in others))
        for i, first in enumerate(sequence)
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))
