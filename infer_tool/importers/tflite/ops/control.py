"""Branches, loops and calls of other subgraphs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import ModelError
from infer_tool.importers.tflite.names import DTYPES
from infer_tool.importers.tflite.registry import op
from infer_tool.importers.tflite.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_tool.importers.tflite.call import Call


@op("CALL_ONCE")
def call_once(c: Call) -> None:
    """A subgraph that gives variables their first values."""
    states = c.scope.shared.states
    states.is_initialising = True
    Scope(c.scope.shared, c.options.integer("subgraph")).run()
    states.is_initialising = False


@op("CALL")
def call(c: Call) -> None:
    """Another subgraph in the place of the operator."""
    results = _inlined(c, c.options.integer("subgraph"), c.operator.inputs, None)
    for slot, value in enumerate(results[: c.outputs]):
        c.bind(value, slot)


@op("IF")
def if_(c: Call) -> None:
    """Two subgraphs, of which one runs."""
    condition = _truth(c, c.stored(0))
    numbers = c.options.integer("then"), c.options.integer("otherwise")
    branches = {
        key: c.build.inside([], partial(_inlined, c, number, c.operator.inputs[1:], None))
        for key, number in zip(("then_branch", "else_branch"), numbers, strict=True)
    }
    counts = {len(graph.outputs) for graph in branches.values()}
    if counts != {c.outputs}:
        raise ModelError(f"{c} has branches with {sorted(counts)} results, needs {c.outputs}")
    for slot, value in enumerate(c.build.node("If", [condition], c.outputs, **branches)):
        c.bind(value, slot)


@op("WHILE")
def while_(c: Call) -> None:
    """Two subgraphs: whether to go on, and what comes next.

    ONNX Loop asks after the body, TFLite before it: the first question comes before the loop.
    """
    carried = [slot for slot in range(c.inputs) if c.tensor(slot).type != "RESOURCE"]
    first = [c.stored(slot) for slot in carried]
    question = c.options.integer("condition")
    (start, *_) = _inlined(c, question, c.operator.inputs, dict(zip(carried, first, strict=True)))
    state = [_loop_value(c, slot) for slot in carried]
    number = _scalar(c, "iteration", np.int64)
    going = _scalar(c, "going_on", np.bool_)

    def body() -> Sequence[ir.Value]:
        now = dict(zip(carried, state, strict=True))
        results = _inlined(c, c.options.integer("body"), c.operator.inputs, now)
        if len(results) != c.inputs:
            raise ModelError(f"{c} has a body with {len(results)} results, needs {c.inputs}")
        after = {slot: results[slot] for slot in carried}
        (goes_on, *_) = _inlined(c, question, c.operator.inputs, after)
        return [_truth(c, goes_on), *after.values()]

    graph = c.build.inside([number, going, *state], body)
    inputs = [None, _truth(c, start), *first]
    for slot, value in zip(
        carried, c.build.node("Loop", inputs, len(carried), body=graph), strict=True
    ):
        if slot < c.outputs:
            c.bind(value, slot)


def _inlined(
    c: Call, number: int, inputs: Sequence[int], values: dict[int, ir.Value] | None
) -> list[ir.Value]:
    """The results of a subgraph; `values` are its inputs by slot, else those of the operator."""
    scope = Scope(c.scope.shared, number)
    scope.is_inner = True
    if len(scope.subgraph.inputs) != len(inputs):
        raise ModelError(
            f"{c} gives {len(inputs)} inputs to subgraph {number}, which takes "
            f"{len(scope.subgraph.inputs)}"
        )
    for slot, (outer, inner) in enumerate(zip(inputs, scope.subgraph.inputs, strict=True)):
        tensor = c.scope.tensor(outer)
        if tensor.type == "RESOURCE":
            scope.handles[inner] = c.scope.handle(tensor)
        else:
            value = c.scope.value(tensor) if values is None else values[slot]
            scope.feed(scope.tensor(inner), value)
    scope.run()
    outputs = [scope.tensor(index) for index in scope.subgraph.outputs]
    return [
        c.build.constant(0) if tensor.type == "RESOURCE" else scope.value(tensor)
        for tensor in outputs
    ]


def _loop_value(c: Call, slot: int) -> ir.Value:
    """A loop may change the sizes of what it carries: only the file says which stay."""
    tensor, value = c.tensor(slot), c.stored(slot)
    known = tensor.signature or tensor.shape
    fixed = None if -1 in known or not (known or tensor.has_rank) else value.shape
    return ir.Value(
        name=c.build.name("carried"), shape=fixed, type=ir.TensorType(DTYPES[tensor.type])
    )


def _scalar(c: Call, name: str, dtype: type) -> ir.Value:
    kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    return ir.Value(name=c.build.name(name), shape=ir.Shape([]), type=kind)


def _truth(c: Call, value: ir.Value) -> ir.Value:
    """A condition of one element, without axes."""
    return c.emit("Reshape", value, c.build.constant(np.zeros(0, np.int64)))
