"""Model-local functions of our own domain: what ONNX has no type for, in standard operators."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


DOMAIN = "infertool"


@dataclass
class Body:
    """The nodes of a function under construction; calling it adds one and gives its output."""

    inputs: list[ir.Value]
    nodes: list[ir.Node] = field(default_factory=list)

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Add a node of one output."""
        node = ir.node(op_type, inputs, attributes=attributes, name=f"n{len(self.nodes)}")
        node.outputs[0].name = f"v{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, array: Any) -> ir.Value:
        """Functions have no initialisers: a Constant node."""
        return self("Constant", value=ir.tensor(array))


def add_function(
    model: ir.Model, name: str, inputs: Sequence[str], build: Callable[[Body], ir.Value]
) -> None:
    """Give the model the function `infertool::<name>`, once."""
    key = (DOMAIN, name, "")
    if key in model.functions:
        return
    body = Body([ir.Value(name=n) for n in inputs])
    result = build(body)
    graph = ir.Graph(
        body.inputs, [result], nodes=body.nodes, opset_imports=dict(model.opset_imports)
    )
    model.functions[key] = ir.Function(DOMAIN, name, graph=graph, attributes=[])
    model.opset_imports[DOMAIN] = 1


def inline_functions(model: ir.Model) -> None:
    """Put the bodies of our functions in the place of their calls; the model stays the same."""
    from onnx_ir.passes.common import InlinePass

    from passes.deduplicate_initializers import DeduplicateInitializers
    from passes.lift_constants import LiftConstants

    if not any(key[0] == DOMAIN for key in model.functions):
        return
    InlinePass()(model)
    LiftConstants().apply(model)
    DeduplicateInitializers().apply(model)
    model.opset_imports.pop(DOMAIN, None)
