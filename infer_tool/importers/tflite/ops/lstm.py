"""LSTM layers of real numbers.

As an ONNX LSTM where that says the same; where the cell is clipped after every step or the output
projected, which it cannot say, as a Scan. The products with the inputs of all steps come before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from infer_tool.importers.tflite.recurrence import (
    Layer,
    from_time_first,
    join,
    read_state,
    refuse_integers,
    time_first,
    write_state,
)
from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_tool.importers.tflite.call import Call

_TANH, _FULL = 4, 0
_I, _F, _C, _O = range(4)  # the order of the gates in TFLite
_ONNX_ORDER = (_I, _O, _F, _C)


@dataclass(frozen=True)
class _Slots:
    """Where the inputs of one direction start; weights and biases are four in a row."""

    weights: int
    recurrent: int
    peepholes: int
    biases: int
    projection: int
    state: int
    cell: int


@op("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM")
def lstm(c: Call) -> None:
    """24 inputs, the last four for layer normalisation."""
    _check(c, range(20, c.inputs))
    if c.operator.name == "LSTM" and c.options.integer("kernel") != _FULL:
        raise c.unsupported("the basic kernel")
    layer = Layer(c, is_single=c.operator.name == "LSTM")
    slots = _Slots(1, 5, 9, 12, 16, 18, 19)
    c.put(_direction(layer, slots, backwards=False), c.outputs - 1)


@op("BIDIRECTIONAL_SEQUENCE_LSTM")
def bidirectional_lstm(c: Call) -> None:
    """The inputs of both directions, then their states."""
    _check(c, range(39, c.inputs))
    layer = Layer(c)
    forward = _direction(layer, _Slots(1, 5, 9, 12, 16, 35, 36), backwards=False)
    backward = _direction(layer, _Slots(18, 22, 26, 29, 33, 37, 38), backwards=True)
    join(c, forward, backward)


def _check(c: Call, others: Sequence[int]) -> None:
    refuse_integers(c)
    if any(c.has(slot) for slot in others):
        raise c.unsupported("layer normalisation or a second input")
    if c.options.integer("activation") != _TANH:
        raise c.unsupported(f"fused activation {c.options.integer('activation')}")
    if c.operator.name == "UNIDIRECTIONAL_SEQUENCE_LSTM" and c.options.flag("diagonal"):
        raise c.unsupported("diagonal recurrent weights")


def _direction(layer: Layer, slots: _Slots, *, backwards: bool) -> ir.Value:
    c = layer.call
    x = time_first(layer)
    state, cell = (read_state(layer, slot, x) for slot in (slots.state, slots.cell))
    needs_scan = c.options.real("cell_clip") > 0 or c.has(slots.projection)
    run = _scanned if needs_scan else _fused
    y, last, last_cell = run(c, slots, x, state, cell, backwards)
    write_state(layer, slots.state, last)
    write_state(layer, slots.cell, last_cell)
    return from_time_first(layer, y)


def _gates(c: Call, slots: _Slots, first: int, order: Sequence[int]) -> list[ir.Value]:
    """The parts of weights or biases by gate.

    Without an input gate of its own the forget gate leaves as much as the input gate takes:
    1 - sigmoid(z) is sigmoid(-z).
    """
    coupled = not c.has(slots.weights)
    return [
        c.emit("Neg", c.real(first + _F)) if gate == _I and coupled else c.real(first + gate)
        for gate in order
    ]


def _peepholes(c: Call, slots: _Slots) -> list[ir.Value] | None:
    """Of the input, forget and output gate."""
    first = slots.peepholes
    if not c.has(first + 1):
        return None
    forget = c.real(first + 1)
    own = c.real(first) if c.has(first) else c.emit("Neg", forget)
    return [own, forget, c.real(first + 2)]


Results = tuple[ir.Value, ir.Value, ir.Value]


def _fused(
    c: Call, slots: _Slots, x: ir.Value, state: ir.Value, cell: ir.Value, backwards: bool
) -> Results:
    front = c.build.ints(0)
    weight, recurrent = (
        c.emit("Unsqueeze", c.emit("Concat", *_gates(c, slots, first, _ONNX_ORDER), axis=0), front)
        for first in (slots.weights, slots.recurrent)
    )
    units = c.sizes(c.real(slots.recurrent + _F))[0]
    nothing = c.build.constant(np.zeros(4 * (units or 0), np.float32))
    biases = c.emit("Concat", *_gates(c, slots, slots.biases, _ONNX_ORDER), nothing, axis=0)
    peepholes = _peepholes(c, slots)
    extra = None
    if peepholes is not None:
        own, forget, output = peepholes
        extra = c.emit("Unsqueeze", c.emit("Concat", own, output, forget, axis=0), front)
    outputs = c.build.node(
        "LSTM",
        [x, weight, recurrent, c.emit("Unsqueeze", biases, front), None,
         c.emit("Unsqueeze", state, front), c.emit("Unsqueeze", cell, front), extra],
        3, hidden_size=units, direction="reverse" if backwards else "forward",
    )  # fmt: skip
    y, last, last_cell = outputs
    return (
        c.emit("Squeeze", y, c.build.ints(1)),
        c.emit("Squeeze", last, front),
        c.emit("Squeeze", last_cell, front),
    )


def _scanned(
    c: Call, slots: _Slots, x: ir.Value, state: ir.Value, cell: ir.Value, backwards: bool
) -> Results:
    order = (_I, _F, _C, _O)
    weight, recurrent = (
        c.permuted(c.emit("Concat", *_gates(c, slots, first, order), axis=0), (1, 0))
        for first in (slots.weights, slots.recurrent)
    )
    bias = c.emit("Concat", *_gates(c, slots, slots.biases, order), axis=0)
    before = c.emit("Add", c.emit("MatMul", x, weight), bias)
    peepholes = _peepholes(c, slots)
    step, h, cl = (_like(c, v, drop) for v, drop in ((before, 1), (state, 0), (cell, 0)))

    def body() -> list[ir.Value]:
        gates = c.emit("Add", step, c.emit("MatMul", h, recurrent))
        new, new_cell = _step(c, gates, cl, peepholes)
        if c.has(slots.projection):
            new = _projected(c, slots, new)
        return [new, new_cell, new]

    graph = c.build.inside([h, cl, step], body)
    last, last_cell, y = c.build.node(
        "Scan", [state, cell, before], 3, body=graph, num_scan_inputs=1,
        scan_input_directions=[int(backwards)], scan_output_directions=[int(backwards)],
    )  # fmt: skip
    return y, last, last_cell


def _step(
    c: Call, gates: ir.Value, cell: ir.Value, peepholes: list[ir.Value] | None
) -> tuple[ir.Value, ir.Value]:
    """One step: the new output before projection, and the new cell."""
    zi, zf, zc, zo = c.build.node("Split", [gates], 4, axis=-1, num_outputs=4)
    if peepholes is not None:
        zi = c.emit("Add", zi, c.emit("Mul", cell, peepholes[0]))
        zf = c.emit("Add", zf, c.emit("Mul", cell, peepholes[1]))
    kept = c.emit("Mul", c.emit("Sigmoid", zf), cell)
    taken = c.emit("Mul", c.emit("Sigmoid", zi), c.emit("Tanh", zc))
    new = _clipped(c, c.emit("Add", kept, taken), "cell_clip")
    if peepholes is not None:
        zo = c.emit("Add", zo, c.emit("Mul", new, peepholes[2]))
    return c.emit("Mul", c.emit("Sigmoid", zo), c.emit("Tanh", new)), new


def _projected(c: Call, slots: _Slots, value: ir.Value) -> ir.Value:
    y = c.emit("MatMul", value, c.real(slots.projection, (1, 0)))
    if c.has(slots.projection + 1):
        y = c.emit("Add", y, c.real(slots.projection + 1))
    return _clipped(c, y, "projection_clip")


def _clipped(c: Call, value: ir.Value, option: str) -> ir.Value:
    limit = c.options.real(option)
    if limit <= 0:
        return value
    return c.emit("Clip", value, c.number(-limit, value), c.number(limit, value))


def _like(c: Call, value: ir.Value, drop: int) -> ir.Value:
    """An input of a body: of the type of a value, and of its shape without leading axes."""
    shape = None if value.shape is None else ir.Shape(list(value.shape)[drop:])
    return ir.Value(name=c.build.name("step"), shape=shape, type=value.type)
