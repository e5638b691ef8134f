"""Recurrent layers without gates, of real numbers; their state is a variable tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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
    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call

_ACTIVATIONS = {0: "Affine", 1: "Relu", 4: "Tanh"}  # of ActivationFunctionType


@op("RNN", "UNIDIRECTIONAL_SEQUENCE_RNN")
def rnn(c: Call) -> None:
    """Inputs: values, weights, recurrent weights, bias, state."""
    refuse_integers(c)
    layer = Layer(c, is_single=c.operator.name == "RNN")
    c.put(_direction(layer, (1, 2, 3, 4), backwards=False))


@op("BIDIRECTIONAL_SEQUENCE_RNN")
def bidirectional_rnn(c: Call) -> None:
    """The four inputs of each direction, one after the other."""
    refuse_integers(c)
    if any(c.has(slot) for slot in range(9, c.inputs)):
        raise c.unsupported("a second input")
    layer = Layer(c)
    join(
        c, _direction(layer, (1, 2, 3, 4), backwards=False),
        _direction(layer, (5, 6, 7, 8), backwards=True),
    )  # fmt: skip


def _direction(layer: Layer, slots: tuple[int, ...], *, backwards: bool) -> ir.Value:
    """h = activation(W x + R h + b)."""
    c = layer.call
    kind = c.options.integer("activation")
    if kind not in _ACTIVATIONS:
        raise c.unsupported(f"fused activation {kind}")
    weight, recurrent, bias, state = slots
    x = time_first(layer)
    front = c.build.ints(0)
    w, r = (c.emit("Unsqueeze", c.real(slot), front) for slot in (weight, recurrent))
    units = c.sizes(r)[1]
    both = c.emit(
        "Concat", c.real(bias), c.build.constant(np.zeros(units or 0, np.float32)), axis=0
    )
    first = c.emit("Unsqueeze", read_state(layer, state, x), front)
    attributes = {"activation_alpha": [1.0], "activation_beta": [0.0]} if kind == 0 else {}
    y, last = c.build.node(
        "RNN", [x, w, r, c.emit("Unsqueeze", both, front), None, first], 2,
        hidden_size=units, activations=[_ACTIVATIONS[kind]],
        direction="reverse" if backwards else "forward", **attributes,
    )  # fmt: skip
    write_state(layer, state, c.emit("Squeeze", last, front))
    return from_time_first(layer, c.emit("Squeeze", y, c.build.ints(1)))


@op("SVDF")
def svdf(c: Call) -> None:
    """Filters of low rank: one over the input, one over what it gave in the last steps.

    Inputs: values, feature weights [filters, in], time weights [filters, memory], bias, state.
    """
    refuse_integers(c)
    layer = Layer(c, is_single=True)
    x, time = c.real(0), c.real(2)
    filters, memory = c.sizes(time)
    rank = c.options.integer("rank")
    if not filters or not memory or rank < 1 or filters % rank:
        raise c.unsupported(f"{filters} filters of rank {rank} over {memory} steps")
    new = c.emit("Unsqueeze", c.emit("MatMul", x, c.real(1, (1, 0))), c.build.ints(2))
    before = c.emit("Reshape", read_state(layer, 4, x), c.build.ints(0, filters, memory))
    one, end, axis = c.build.ints(1), c.build.ints(memory), c.build.ints(2)
    after = c.emit("Concat", c.emit("Slice", before, one, end, axis), new, axis=2)
    write_state(layer, 4, c.emit("Reshape", after, c.build.ints(0, filters * memory)))
    weighed = c.emit("ReduceSum", c.emit("Mul", after, time), axis, keepdims=0)
    ranks = c.emit("Reshape", weighed, c.build.ints(0, filters // rank, rank))
    y = c.emit("ReduceSum", ranks, axis, keepdims=0)
    if c.has(3):
        y = c.emit("Add", y, c.real(3))
    c.put(c.activated(y))
