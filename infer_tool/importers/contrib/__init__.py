"""Operators of ONNX Runtime's own domain, written in standard ones.

Graphs that ONNX Runtime has optimised or quantised are full of them. One file for each family;
each rule gets a node and answers its outputs. What no rule knows stays, and the gate names it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from infer_tool.importers.contrib.builder import Builder, Unexpressible
from infer_tool.importers.opset import convert_opset
from infer_tool.quiet import quiet
from passes.facts import opset

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    Rule = Callable[[Builder, ir.Node], list[ir.Value | None]]

DOMAIN = "com.microsoft"
# They stand in the standard domain where the standard has not (or had not yet) such an operator.
UNOFFICIAL = {"SimplifiedLayerNormalization": 1 << 30, "LayerNormalization": 17}
FAMILIES = (
    "activations", "attention", "fused", "layout", "movement", "norms", "quantised_dynamic",
    "quantised_linear", "quantised_weights", "rotary",
)  # fmt: skip
NARROW = 21  # the opset of 4-bit, 16-bit and blocked quantisation


def has_contrib(model: ir.Model) -> bool:
    """Is there any such node?"""
    return any(node.domain == DOMAIN for node in model.graph.all_nodes())


def own_contrib(model: ir.Model) -> None:
    """Give the unofficial guests of the standard domain the domain that they belong to."""
    version = opset(model)
    for node in model.graph.all_nodes():
        if not node.domain and version < UNOFFICIAL.get(node.op_type, 0):
            node.domain = DOMAIN
            model.opset_imports.setdefault(DOMAIN, 1)


def expand_contrib(model: ir.Model, source: str) -> None:
    """Rewrite in place; types that a rule asks for may need the rewrite of another node first.

    Raises:
        ModelError: the graph needs a newer opset that it cannot be converted to.

    """
    from onnx_ir.passes.common import ShapeInferencePass

    from infer_tool.importers.contrib.quantised_weights import needs_newer

    rules = _rules()
    nodes = [n for n in model.graph.all_nodes() if n.domain == DOMAIN]
    if opset(model) < NARROW and any(needs_newer(n) for n in nodes):
        convert_opset(model, NARROW, source)
    while _expand_all(model, rules):
        with quiet():
            ShapeInferencePass()(model)
    if not has_contrib(model):
        model.opset_imports.pop(DOMAIN, None)


def _rules() -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for family in FAMILIES:
        found |= import_module(f"infer_tool.importers.contrib.{family}").RULES
    return found


def _expand_all(model: ir.Model, rules: dict[str, Rule]) -> int:
    done = 0
    for node in list(model.graph.all_nodes()):
        rule = rules.get(node.op_type) if node.domain == DOMAIN else None
        if rule is None:
            continue
        builder = Builder(node)
        try:
            builder.replace(rule(builder, node))
            done += 1
        except Unexpressible:
            builder.discard()
    return done
