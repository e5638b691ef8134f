"""Is a graph well formed? One walk, run after every pass."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

NORMAL_DOMAINS = {"", "ai.onnx"}


def verify(model: ir.Model) -> None:
    """Check names, order, closure, types and operators; subgraphs and functions included.

    Raises:
        ModelError: naming the first node or value that breaks a rule.

    """
    functions = {(f.domain, f.name) for f in model.functions.values()}
    _verify_graph(model.graph, model, functions, frozenset(), set(), set())
    for value in model.graph.outputs:
        if value.type is None:
            raise ModelError(f"output {value.name!r} has no type")
    for function in model.functions.values():
        _verify_nodes(function, model, functions, {id(v) for v in function.inputs}, set(), set())


def _verify_graph(
    graph: ir.Graph,
    model: ir.Model,
    functions: set[tuple[str, str]],
    outer: frozenset[int],
    names: set[str],
    node_names: set[str],
) -> None:
    known = set(outer)
    for value in [*graph.inputs, *graph.initializers.values()]:
        if id(value) not in known:
            _claim(value, names)
            known.add(id(value))
    for name, value in graph.initializers.items():
        if value.const_value is None:
            raise ModelError(f"initialiser {name!r} has no data")
        if value.name != name:
            raise ModelError(f"initialiser {name!r} is registered as {value.name!r}")
    _verify_nodes(graph, model, functions, known, names, node_names)
    for value in graph.outputs:
        if id(value) not in known:
            raise ModelError(f"output {value.name!r} is computed by no node of its graph")


def _verify_nodes(
    nodes: Iterable[ir.Node],
    model: ir.Model,
    functions: set[tuple[str, str]],
    known: set[int],
    names: set[str],
    node_names: set[str],
) -> None:
    for node in nodes:
        _verify_operator(node, model, functions)
        if node.name and node.name in node_names:
            raise ModelError(f"two nodes are named {node.name!r}")
        node_names.add(node.name or "")
        for value in node.inputs:
            if value is not None and id(value) not in known:
                raise ModelError(
                    f"node {_label(node)} uses {value.name!r}, which nothing before it computes"
                )
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                # Branches beside each other may use the same names; inner and outer may not.
                scope = frozenset(known)
                inner = attribute.as_graph()
                _verify_graph(inner, model, functions, scope, set(names), set(node_names))
        for value in node.outputs:
            if value.name:
                _claim(value, names)
            known.add(id(value))


def _claim(value: ir.Value, names: set[str]) -> None:
    if not value.name:
        raise ModelError("a value has no name")
    if value.name in names:
        raise ModelError(f"two values are named {value.name!r}")
    names.add(value.name)


def _verify_operator(node: ir.Node, model: ir.Model, functions: set[tuple[str, str]]) -> None:
    domain = "" if node.domain in NORMAL_DOMAINS else node.domain
    if (node.domain, node.op_type) in functions:
        return
    version = model.opset_imports.get(node.domain, model.opset_imports.get(domain))
    if version is None:
        raise ModelError(f"node {_label(node)} needs domain {node.domain!r}, which has no opset")
    counts = _inputs(node.op_type, version, domain)
    if counts is None:
        raise ModelError(
            f"node {_label(node)}: no operator {domain or 'ai.onnx'}::{node.op_type} "
            f"at opset {version}"
        )
    if not counts[0] <= len(node.inputs) <= counts[1]:
        needs = "at least" if len(node.inputs) < counts[0] else "at most"
        limit = counts[0] if len(node.inputs) < counts[0] else counts[1]
        raise ModelError(
            f"node {_label(node)} has {len(node.inputs)} inputs, it takes {needs} {limit}"
        )


@cache
def _inputs(op_type: str, version: int, domain: str) -> tuple[int, int] | None:
    """Fewest and most inputs; None for an operator that the standard does not define.

    Contributed domains are taken on trust.
    """
    import onnx.defs

    if domain not in ("", "ai.onnx.ml", "ai.onnx.preview.training"):
        return 0, sys.maxsize
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    return None if schema.deprecated else (schema.min_input, schema.max_input)


def _label(node: ir.Node) -> str:
    return f"{node.name or '?'} ({node.op_type})"
