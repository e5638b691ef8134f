"""Which constants of a graph are parameters, by what reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime.errors import UsageError
from passes.base import is_op
from passes.graph import is_constant
from quant.train.binary import SIGNED, STORED
from quant.train.fake import FAKE, TRAIN_DOMAIN
from quant.train.palette import FAKE_PALETTE

if TYPE_CHECKING:
    from collections.abc import Iterator

# Inputs that hold parameters: operator -> index -> role.
_ROLES: dict[str, dict[int, str]] = {
    "Conv": {1: "weight", 2: "bias"},
    "ConvTranspose": {1: "weight", 2: "bias"},
    "Gemm": {1: "weight", 2: "bias"},
    "MatMul": {0: "weight", 1: "weight"},
    "Einsum": {0: "weight", 1: "weight"},
    "Gather": {0: "weight"},
    "PRelu": {1: "scale"},
    "BatchNormalization": {1: "scale", 2: "bias", 3: "statistic", 4: "statistic"},
    "InstanceNormalization": {1: "scale", 2: "bias"},
    "LayerNormalization": {1: "scale", 2: "bias"},
    "GroupNormalization": {1: "scale", 2: "bias"},
    "RMSNormalization": {1: "scale"},
    "LSTM": {1: "weight", 2: "weight", 3: "bias"},
    "GRU": {1: "weight", 2: "weight", 3: "bias"},
    "RNN": {1: "weight", 2: "weight", 3: "bias"},
}
NORMALIZE = "Normalize"
# The same of operators of training, whose first input may have another one: their attribute `role`.
_LEARNED: dict[str, dict[int, str]] = {
    FAKE: {0: "weight", 1: "scale"},
    FAKE_PALETTE: {0: "weight", 1: "scale"},
    SIGNED: {0: "weight"},
    STORED: {0: "scale"},
    NORMALIZE: {1: "scale", 2: "bias", 3: "statistic", 4: "statistic"},
}
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")
TRAINED = ("weight", "bias", "scale")


@dataclass(frozen=True)
class Parameter:
    """An initialiser of the main graph that training may change."""

    name: str
    role: str  # weight, bias, scale or statistic
    shape: tuple[int, ...]


def parameters_of(model: ir.Model) -> dict[str, Parameter]:
    """All float parameters of the main graph by name, in the order of their first readers.

    A constant with two roles has the first one; one that a subgraph reads too is none.

    Raises:
        UsageError: there are none that can be trained.

    """
    found: dict[str, Parameter] = {}
    for node in model.graph:
        for index, role in _roles(node):
            value = node.inputs[index]
            if value is None or not _is_parameter(model, value):
                continue
            assert value.const_value is not None
            shape = tuple(value.const_value.shape.numpy())
            found.setdefault(value.name or "", Parameter(value.name or "", role, shape))
    if not any(p.role in TRAINED for p in found.values()):
        raise UsageError("the model has no float weights that could be trained")
    return found


def _roles(node: ir.Node) -> Iterator[tuple[int, str]]:
    if node.domain == TRAIN_DOMAIN:
        for index, role in _LEARNED.get(node.op_type, {}).items():
            yield index, node.attributes.get_string("role", role) if index == 0 else role
    if not is_op(node, node.op_type):
        return
    for index, role in _ROLES.get(node.op_type, {}).items():
        if index < len(node.inputs):
            yield index, role
    if node.op_type != "Add":
        return
    for index, other in ((0, 1), (1, 0)):  # the bias of a product that has none of its own
        value = node.inputs[other]
        if value is not None and is_op(value.producer(), *_PRODUCTS):
            yield index, "bias"


def _is_parameter(model: ir.Model, value: ir.Value) -> bool:
    if not is_constant(value) or value.dtype != ir.DataType.FLOAT or value.is_graph_output():
        return False
    return all(user.graph is model.graph for user, _ in value.uses())
