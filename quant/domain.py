"""Model-local functions of our own domain: what ONNX has no type for, in standard operators."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime.functions import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


DOMAIN = LOCAL


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

    def given(self, name: str) -> ir.Value:
        """The integers of an attribute of the function as a value."""
        return self("Constant", value_ints=attribute("value_ints", name))

    def call(self, name: str, *inputs: ir.Value) -> ir.Value:
        """The output of another function of ours."""
        value = self(name, *inputs)
        node = value.producer()
        assert node is not None
        node.domain = DOMAIN
        return value


def attribute(name: str, of: str, kind: ir.AttributeType = ir.AttributeType.INTS) -> ir.Attr:
    """An attribute of a node in a body that is the attribute `of` the function."""
    return ir.RefAttr(name, of, kind)


def add_function(
    model: ir.Model,
    name: str,
    inputs: Sequence[str],
    build: Callable[[Body], ir.Value],
    attributes: Sequence[str] = (),
) -> None:
    """Give the model the function `infertool::<name>`, once; all its attributes are required."""
    key = (DOMAIN, name, "")
    if key in model.functions:
        return
    body = Body([ir.Value(name=n) for n in inputs])
    result = build(body)
    model.opset_imports[DOMAIN] = 1
    graph = ir.Graph(
        body.inputs, [result], nodes=body.nodes, opset_imports=dict(model.opset_imports)
    )
    needed = [ir.Attr(a, ir.AttributeType.UNDEFINED, None) for a in attributes]
    model.functions[key] = ir.Function(DOMAIN, name, graph=graph, attributes=needed)


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
