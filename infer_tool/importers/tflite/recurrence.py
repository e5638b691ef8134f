"""What recurrent operators share: the time axis, the state, two directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call


@dataclass(frozen=True)
class Layer:
    """An operator over sequences, or over a single step that has no time axis."""

    call: Call
    is_single: bool = False

    @property
    def is_time_major(self) -> bool:
        """Is the first axis the time?"""
        return not self.is_single and self.call.options.flag("time_major")


def refuse_integers(c: Call) -> None:
    """Their integer kernels keep gates in formats of 16 bits that no ONNX operator has.

    Raises:
        UnsupportedOpError: the values are quantised.

    """
    if c.is_quantised():
        raise c.unsupported("quantised values; convert the model with this layer in float")


def time_first(layer: Layer) -> ir.Value:
    """The values as [time, batch, features]."""
    c, x = layer.call, layer.call.real(0)
    if layer.is_single:
        return c.emit("Unsqueeze", x, c.build.ints(0))
    return x if layer.is_time_major else c.permuted(x, (1, 0, 2))


def from_time_first(layer: Layer, y: ir.Value) -> ir.Value:
    """Results in the layout of the values."""
    c = layer.call
    if layer.is_single:
        return c.emit("Squeeze", y, c.build.ints(0))
    return y if layer.is_time_major else c.permuted(y, (1, 0, 2))


def read_state(layer: Layer, slot: int, x: ir.Value) -> ir.Value:
    """The state before the operator; one for each sample where the file has one for all.

    Args:
        layer: the operator.
        slot: of its input.
        x: whose second last axis is the batch.

    """
    c = layer.call
    state = c.real(slot)
    batch = c.rank(x) - 2
    if isinstance(c.sizes(x)[batch], int):
        return state
    size = c.emit("Shape", x, start=batch, end=batch + 1)
    return c.emit("Expand", state, c.emit("Concat", size, c.build.ints(1), axis=0))


def write_state(layer: Layer, slot: int, value: ir.Value) -> None:
    """The state after the operator."""
    c = layer.call
    if c.tensor(slot).is_variable:
        c.assign_state(slot, value)


def join(c: Call, forward: ir.Value, backward: ir.Value) -> None:
    """Bind the results of two directions, one after the other in each step where that is asked."""
    if c.options.flag("merge_outputs"):
        c.put(c.emit("Concat", forward, backward, axis=-1))
    else:
        c.put(forward)
        c.put(backward, 1)
