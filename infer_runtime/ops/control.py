"""Control flow. A subgraph arrives as a function from its inputs to a tuple of its outputs."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from infer_runtime.arrays import Array, moved_axis, namespace, scalar
from infer_runtime.errors import LimitError
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A loop without an end is an error of the model, not a reason to hang.
MOST_ITERATIONS = 1_000_000


class Subgraph(Protocol):
    """A graph inside a node, as a function."""

    empty_outputs: tuple[Any, ...]  # each output, stacked over no iterations
    settled: Callable[[Any], Any]  # a number of NumPy -> an array of the run's library

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """The outputs for these inputs."""


@op("If", library="any")
def If(cond: Array, *, then_branch: Subgraph, else_branch: Subgraph) -> tuple[Any, ...]:
    """The branch that the condition names."""
    return then_branch() if scalar(cond) else else_branch()


@op("Loop", library="any")
def Loop(
    M: Array | None = None, cond: Array | None = None, *carried: Any, body: Subgraph
) -> tuple[Any, ...]:
    """Run the body at most M times while its condition holds.

    The body maps (iteration, condition, carried...) to (condition, carried..., scanned...);
    scanned values are stacked over the iterations.
    """
    limit = None if M is None else scalar(M)
    going = body.settled(np.array(True)) if cond is None else cond.reshape(())
    state, scanned = tuple(carried), []
    for i in count():
        if (limit is not None and i >= limit) or not scalar(going):
            break
        if i >= MOST_ITERATIONS:
            raise LimitError(f"a Loop is still running after {MOST_ITERATIONS:,} iterations")
        results = body(body.settled(np.array(i, np.int64)), going, *state)
        going, state = results[0], results[1 : 1 + len(carried)]
        scanned.append(results[1 + len(carried) :])
    return *state, *_stacked(scanned, body.empty_outputs[1 + len(carried) :])


def _stacked(rows: list[tuple[Any, ...]], empty: tuple[Any, ...]) -> tuple[Any, ...]:
    """The scanned values of all iterations; of none, empty arrays as the body declares them."""
    if not rows:
        return empty
    return tuple(namespace(*column).stack(column) for column in zip(*rows, strict=True))


@op("Scan", since=9, library="any")
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
        sequences[i] = moved_axis(sequences[i], axis, 0)
    for i, backward in enumerate(scan_input_directions or ()):
        sequences[i] = _turned(sequences[i]) if backward else sequences[i]
    scanned = []
    for t in range(len(sequences[0])):
        results = body(*state, *(body.settled(s[t]) for s in sequences))
        state = results[:states]
        scanned.append(results[states:])
    outputs = list(_stacked(scanned, body.empty_outputs[states:]))
    for i, backward in enumerate(scan_output_directions or ()):
        outputs[i] = _turned(outputs[i]) if backward else outputs[i]
    for i, axis in enumerate(scan_output_axes or ()):
        outputs[i] = moved_axis(outputs[i], 0, axis)
    return *state, *outputs


@op("Scan", since=8, library="any")
def Scan_8(
    sequence_lens: Array | None = None,
    *inputs: Any,
    body: Subgraph,
    num_scan_inputs: int,
    directions: Sequence[int] | None = None,
) -> tuple[Any, ...]:
    """Opset 8: axis 0 is the batch, axis 1 the time; every sample is scanned for itself."""
    if sequence_lens is not None:
        raise ValueError("Scan with sequence lengths has no kernel")
    samples = [
        Scan(
            *(x[i] for x in inputs), body=body, num_scan_inputs=num_scan_inputs,
            scan_input_directions=directions,
        )
        for i in range(inputs[0].shape[0])
    ]  # fmt: skip
    return tuple(namespace(*column).stack(column) for column in zip(*samples, strict=True))


def _turned(x: Array) -> Array:
    return namespace(x).flip(x, axis=0)


@op("SequenceMap", since=17, library="any")
def SequenceMap(sequence: list[Any], *others: Any, body: Subgraph) -> tuple[list[Any], ...]:
    """Apply the body to each element; other sequences go along, tensors are shared."""
    rows = [
        body(first, *(o[i] if isinstance(o, list) else o for o in others))
        for i, first in enumerate(sequence)
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))
