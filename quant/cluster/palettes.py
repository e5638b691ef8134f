"""Weights of few values: choose them, keep them while they are trained, write them packed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime.errors import UsageError
from passes.base import Refusal
from passes.graph import add_initializer, constant, forget_names, fresh_name, take_description
from passes.remove_unused import RemoveUnused
from passes.verify import verify
from quant.domain import inline_functions
from quant.formats.palette import PALETTES, fit_tables, nearest
from quant.granularity import PerAxis, PerTensor
from quant.packing import BYTE
from quant.sites import sites
from quant.store import Store
from quant.tensor import QuantizedTensor
from quant.train.extra import import_torch
from quant.train.fake import NO_AXIS, TRAIN_DOMAIN
from quant.train.palette import FAKE_PALETTE, as_rows, codes_of
from quant.weight_only import check_excluded

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from quant.cluster.config import ClusterConfig
    from quant.sites import Site
    from quant.train.module import Trainable

    Array = np.ndarray[Any, Any]

FLOAT_BYTES = 4
# What the nodes that unpack one weight add to a file: bytes whole, bits that share bytes, bits in
# planes, a table for each channel, and as often the name of the weight.
WHOLE_NODES, SHARED_NODES, PLANE_NODES, CHANNEL_NODES, NAMES = 170, 1050, 1500, 80, 25


@dataclass
class Clustered:
    """A graph with a FakePalette behind each clustered weight, and why others have none."""

    model: ir.Model
    weights: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


def cluster(model: ir.Model, config: ClusterConfig) -> Clustered:
    """A copy of a model whose weights are seen as the nearest of `config.clusters` values each.

    Raises:
        UsageError: `exclude` names no node, or no weight would become smaller.

    """
    check_excluded(model, config.exclude)
    copy = model.clone()
    forget_names(copy)
    result = Clustered(copy)
    for site in _chosen(result, config):
        _insert(result, site, config)
    if not result.weights:
        first = f": {result.refusals[0].reason}" if result.refusals else ""
        raise UsageError(f"no weight of this model can be clustered{first}")
    copy.opset_imports[TRAIN_DOMAIN] = 1
    return result


def _chosen(result: Clustered, config: ClusterConfig) -> list[Site]:
    """The first place of each weight that becomes smaller."""
    found: dict[str, Site] = {}
    for site, reason in list(sites(result.model)):
        name, node = site.weight.name or "", site.node
        if any(n.name in config.exclude for n, _ in site.weight.uses()):
            reason = "excluded by the user"
        reason = reason or _size_reason(result.model, site, config)
        if reason is not None:
            result.refusals.append(Refusal(node.name or "?", node.op_type, reason))
        elif name not in found:
            found[name] = site
    return list(found.values())


def _size_reason(model: ir.Model, site: Site, config: ClusterConfig) -> str | None:
    weight = site.weight
    if model.graph.initializers.get(weight.name or "") is not weight:
        return f"its weight {weight.name} is in a branch or a loop"
    array = _array(weight)
    channels = array.shape[site.channel] if config.per == "channel" else 0
    table = max(channels, 1) * config.clusters + channels
    bits, now = _bits(config.clusters), array.size * FLOAT_BYTES
    nodes = WHOLE_NODES if bits == BYTE else PLANE_NODES if BYTE % bits else SHARED_NODES
    nodes += NAMES * len(weight.name or "") + (CHANNEL_NODES if channels else 0)
    packed = -(-array.size * bits // BYTE) + table * FLOAT_BYTES + nodes
    if packed < now:
        return None
    return f"its weight {weight.name} would grow from {now} to {packed} bytes"


def _bits(count: int) -> int:
    return (count - 1).bit_length()


def _insert(result: Clustered, site: Site, config: ClusterConfig) -> None:
    weight, graph = site.weight, result.model.graph
    array = _array(weight)
    axis = site.channel % array.ndim if config.per == "channel" else None
    table = add_initializer(
        graph, f"{weight.name}_values", fit_tables(array, config.clusters, axis)
    )
    node = ir.node(
        FAKE_PALETTE,
        [weight, table],
        {"axis": NO_AXIS if axis is None else axis},
        domain=TRAIN_DOMAIN,
        name=fresh_name(graph, f"{weight.name}_clustered"),
    )
    output = node.outputs[0]
    output.name = node.name
    weight.replace_all_uses_with(output)
    node.replace_input_with(0, weight)
    take_description(output, weight)
    graph.insert_before(graph[0], node)
    result.weights.append(weight.name or "")


def refit(module: Trainable) -> None:
    """Every value becomes the mean of its members: one of Lloyd's iterations, on trained weights.

    A value without members stays where it is.
    """
    torch = import_torch()
    for node in _palettes(module.model):
        weight, table = (module.parameters[v.name or ""] for v in node.inputs if v is not None)
        with torch.no_grad():
            rows = as_rows(weight, node.attributes.get_int("axis", NO_AXIS))
            tables = table.reshape(len(rows), -1)
            codes = codes_of(rows, tables)
            zeros = torch.zeros_like(tables, dtype=torch.float64)
            count = zeros.scatter_add(1, codes, torch.ones_like(rows, dtype=torch.float64))
            total = zeros.scatter_add(1, codes, rows.double())
            means = torch.where(count > 0, total / count.clamp_min(1), tables)
            table.copy_(means.sort(1).values.reshape(table.shape))


def emit(model: ir.Model) -> ir.Model:
    """A copy with the numbers of the values packed, in the place of each FakePalette."""
    copy = model.clone()
    forget_names(copy)
    store = Store(copy)
    for node in list(_palettes(copy)):
        weight, output = node.inputs[0], node.outputs[0]
        assert weight is not None
        number = store.number(weight.name or "", stored(node))
        take_description(number, weight)
        output.replace_all_uses_with(number)
        copy.graph.remove(node, safe=True)
    RemoveUnused().apply(copy)
    del copy.opset_imports[TRAIN_DOMAIN]
    inline_functions(copy)
    verify(copy)
    return copy


def stored(node: ir.Node) -> QuantizedTensor:
    """What a file holds of the weight of a FakePalette node."""
    array, table = _array(node.inputs[0]), _array(node.inputs[1])
    at = node.attributes.get_int("axis", NO_AXIS)
    axis = None if at == NO_AXIS else at
    form = PALETTES[_bits(table.shape[-1]) - 1]
    kind = PerTensor() if axis is None else PerAxis(axis)
    return QuantizedTensor(form, kind, nearest(array, table, axis), table)


def _palettes(model: ir.Model) -> Iterator[ir.Node]:
    return (n for n in model.graph if (n.domain, n.op_type) == (TRAIN_DOMAIN, FAKE_PALETTE))


def _array(value: ir.Value | None) -> Array:
    array = constant(value)
    assert array is not None
    return array
