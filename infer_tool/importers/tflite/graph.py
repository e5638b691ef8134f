"""From a parsed file to a model: operators are checked first, then imported in order."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime.errors import UnsupportedOpError
from infer_tool.importers.tflite.builder import Builder, check_size
from infer_tool.importers.tflite.names import CUSTOM, DTYPES
from infer_tool.importers.tflite.registry import handlers
from infer_tool.importers.tflite.scope import Scope, Shared
from infer_tool.importers.tflite.signatures import Entry, entry
from infer_tool.importers.tflite.states import STATE_OUT, STATES, State, States

if TYPE_CHECKING:
    from infer_tool.importers.tflite.schema import File, Operator, Tensor

OPSET = 20
WIDER = 21  # the first with int4 and int16 in QuantizeLinear and DequantizeLinear
WIDEST = 25  # the first with int2
SHOWN = 5


@dataclass(frozen=True)
class Result:
    """The model, which part of the file it is, and its variables."""

    model: ir.Model
    entry: Entry
    states: dict[str, State]

    @property
    def state_names(self) -> dict[str, str]:
        """Each state input and the output that goes there in the next step."""
        return {str(s.input.name): f"{STATE_OUT}{name}" for name, s in self.states.items()}


def import_file(file: File, signature: str) -> Result:
    """Import the subgraph that a signature names.

    Raises:
        ModelError: its parts do not fit together.
        UnsupportedOpError: operators without an importer, with their counts and places.
        UsageError: no such signature.

    """
    _check_operators(file)
    chosen = entry(file, signature)
    builder = Builder(_opset(file))
    shared = Shared(file, builder, States(builder, file))
    scope = Scope(shared, chosen.subgraph)
    graph = builder.graph
    for name, index in chosen.inputs.items():
        value = _input(builder, name, scope.tensor(index))
        scope.feed(scope.tensor(index), value)
        graph.inputs.append(value)
    scope.run()
    for name, index in chosen.outputs.items():
        graph.outputs.append(_output(builder, name, scope.value(scope.tensor(index))))
    model = ir.Model(graph, ir_version=10)
    _add_states(model, builder, shared.states.found)
    for name in [n for n, v in graph.initializers.items() if not v.uses() and n not in _fed(graph)]:
        del graph.initializers[name]
    result = Result(model, chosen, shared.states.found)
    if result.states:
        model.metadata_props[STATES] = json.dumps(result.state_names)
    return result


def _check_operators(file: File) -> None:
    """Everything that cannot be imported in one error, before any work is done."""
    known = handlers()
    unknown = [
        (operator, subgraph)
        for subgraph in file.subgraphs
        for operator in subgraph.operators
        if operator.name not in known
    ]
    if not unknown:
        return
    counts = Counter(_shown(operator) for operator, _ in unknown)
    listed = ", ".join(f"{name} ({count}x)" for name, count in counts.most_common(SHOWN))
    first, subgraph = unknown[0]
    raise UnsupportedOpError(
        f"no ONNX operator for {listed}, first at operator {first.index} of subgraph "
        f"{subgraph.index}; convert the model without it, or cut the part out before"
    )


def _shown(operator: Operator) -> str:
    """Custom operators by the name that their author gave them."""
    kind, _, name = operator.name.partition(":")
    return f"custom operator {name!r}" if kind == CUSTOM else kind


def _opset(file: File) -> int:
    kinds = {t.type for s in file.subgraphs for t in s.tensors if t.quantisation is not None}
    kinds |= {t.type for s in file.subgraphs for t in s.tensors if t.type in ("INT4", "INT2")}
    if "INT2" in kinds:
        return WIDEST
    return WIDER if kinds & {"INT4", "UINT4", "INT16"} else OPSET


def _input(builder: Builder, name: str, tensor: Tensor) -> ir.Value:
    if tensor.type not in DTYPES or tensor.type in ("RESOURCE", "COMPLEX64"):
        raise UnsupportedOpError(f"input {name!r} is of type {tensor.type}")
    builder.name(name)
    shape = [
        size if size >= 0 else ("batch" if axis == 0 else f"{name}_{axis}")
        for axis, size in enumerate(tensor.signature or tensor.shape)
    ]
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(DTYPES[tensor.type]))
    check_size(value)
    return value


def _output(builder: Builder, name: str, value: ir.Value) -> ir.Value:
    """A value of its own for each output, under the user's name."""
    if value.producer() is None or value.is_graph_output():
        value = builder.copy(value)
    value.name = name
    return value


def _fed(graph: ir.Graph) -> set[str | None]:
    return {value.name for value in graph.inputs}


def _add_states(model: ir.Model, builder: Builder, states: dict[str, State]) -> None:
    """State inputs with their defaults, and state outputs."""
    for name, state in states.items():
        value = state.input
        value.const_value = ir.tensor(state.initial, name=value.name)
        model.graph.inputs.append(value)
        model.graph.register_initializer(value)
        model.graph.outputs.append(_output(builder, f"{STATE_OUT}{name}", state.now))
