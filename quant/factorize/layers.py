"""The layers of a graph that can be cut, in all forms that are smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime import Session
from passes.base import Refusal, all_nodes, is_op
from passes.facts import infer_shapes, macs_by_node
from passes.graph import constant
from quant.factorize.choose import Layer, Option
from quant.factorize.factors import as_matrix, as_rows, factors, lost, moments_of
from quant.moments import Watch, rows_of, weight_of
from quant.selection import LINEAR, weight_reason
from quant.weight_only import check_excluded, observe_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from quant.factorize.config import FactorizeConfig
    from quant.factorize.factors import Factors, Way

    Array = np.ndarray[Any, Any]
    Feeds = Mapping[str, Array]

RANKS = 24  # that are tried of one layer and way, evenly
IMAGE = 2  # axes of an image


@dataclass
class Cut:
    """One layer that may become two: its rows [outputs, K], what it meets, all its factors."""

    node: ir.Node
    rows: Array
    taps: tuple[int, ...]
    moments: Array | None  # second moments [K, K]; centred where a bias takes the mean error
    mean: Array  # [K]; zeros where it does not
    ways: dict[Way, Factors]

    def rows_at(self, way: Way, rank: int) -> Array:
        """The rows of the two layers together."""
        matrix = self.ways[way].product(rank)
        return as_rows(matrix, self.taps, way, len(self.rows))

    def shift(self, rows: Array) -> Array:
        """What the bias makes good, [outputs]."""
        return np.asarray((self.rows - rows) @ self.mean)


def cuts(
    model: ir.Model, feeds: Sequence[Feeds], config: FactorizeConfig
) -> tuple[list[Cut], list[Refusal]]:
    """Every layer that can be cut, with what its inputs are on some samples; why others stay.

    Raises:
        UsageError: `exclude` names no node; a sample gives NaN.

    """
    check_excluded(model, config.exclude)
    nodes, refusals = [], []
    for node in all_nodes(model):
        if not is_op(node, *LINEAR):
            continue
        if reason := _reason(model, node, config):
            refusals.append(Refusal(node.name or "?", node.op_type, reason))
        else:
            nodes.append(node)
    watch = Watch(nodes)
    if nodes:
        observe_values(model, feeds, watch)
    return [_cut(node, watch) for node in nodes], refusals


def _reason(model: ir.Model, node: ir.Node, config: FactorizeConfig) -> str | None:
    if node.graph is not model.graph:
        return "it is in a branch or a loop"
    if node.name in config.exclude:
        return "excluded by the user"
    if reason := weight_reason(node):
        return reason
    weight = node.inputs[1]
    assert weight is not None
    if len(list(weight.uses())) > 1:
        return f"its weight {weight.name} is shared"
    if weight.dtype is None or weight.dtype.name != "FLOAT":
        return f"its weight {weight.name} is {weight.dtype}, not FLOAT"
    if is_op(node, "Conv") and node.attributes.get_int("group", 1) > 1:
        return f"it has {node.attributes.get_int('group', 1)} groups"
    return None


def _cut(node: ir.Node, watch: Watch) -> Cut:
    array = constant(node.inputs[1])
    assert array is not None
    rows = rows_of(node, array)[0].astype(np.float64)
    taps = tuple(array.shape[2:]) if is_op(node, "Conv") else ()
    assert node.inputs[1] is not None
    seen = watch.moments.get(node.inputs[1].name or "")
    moments, mean = None, np.zeros(rows.shape[1])
    if seen is not None and seen.rows:  # else too large, or never reached
        moments = seen.second[0] if is_op(node, "MatMul") else seen.centred[0]
        mean = mean if is_op(node, "MatMul") else seen.mean[0]
    ways: dict[Way, Factors] = {}
    for way in _ways(node, taps):
        ways[way] = factors(as_matrix(rows, taps, way), moments_of(moments, taps, way))
    return Cut(node, rows, taps, moments, mean, ways)


def _ways(node: ir.Node, taps: tuple[int, ...]) -> list[Way]:
    plain = node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    if len(taps) == IMAGE and min(taps) > 1 and plain:
        return ["channel", "spatial"]
    return ["channel"]


def layers_of(model: ir.Model, found: Sequence[Cut], multiple: int) -> list[Layer]:
    """All forms of each layer; a cut that is not smaller in both counts is none."""
    macs, shapes = macs_by_node(model), infer_shapes(model, {})
    layers = []
    for cut in found:
        name = cut.node.name or ""
        whole = Option(None, 0, cut.rows.size, macs.get(name, 0), 0.0)
        layer = Layer(name, [whole])
        places = whole.macs / cut.rows.size
        for way in cut.ways:
            wide = places * _wider(cut.node, way, shapes)
            layer.options += _options(cut, way, whole, (wide, places), multiple)
        layers.append(layer)
    return layers


def _wider(node: ir.Node, way: Way, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """How many more places the first factor has: a column does not step along its rows yet."""
    if way == "channel":
        return 1.0
    assert node.inputs[0] is not None
    before = shapes.get(node.inputs[0].name or "", (1,))[-1]
    after = shapes.get(node.outputs[0].name or "", (1,))[-1]
    return before / after


def _options(
    cut: Cut, way: Way, whole: Option, places: tuple[float, float], multiple: int
) -> Iterator[Option]:
    found = cut.ways[way]
    sizes = len(found.first), found.second.shape[1]
    bias = len(cut.rows) if np.any(cut.mean) and len(cut.node.inputs) < 3 else 0
    limit = min(found.first.shape[1], int(cut.rows.size / sum(sizes)) + 1)
    ranks = np.arange(multiple, limit + 1, multiple)
    for rank in ranks[:: max(1, -(-len(ranks) // RANKS))].tolist():
        parameters = rank * sum(sizes) + bias
        macs = rank * sum(s * p for s, p in zip(sizes, places, strict=True))
        if parameters < whole.parameters and macs <= whole.macs:
            yield Option(way, rank, parameters, macs, _lost(cut, way, rank))


def _lost(cut: Cut, way: Way, rank: int) -> float:
    """What the factors know where they saw whole patches, and not columns of them."""
    if way == "channel":
        return float(cut.ways[way].lost[rank])
    return lost(cut.rows - cut.rows_at(way, rank), cut.rows, cut.moments)


def weigh(
    model: ir.Model, found: Sequence[Cut], layers: Sequence[Layer], feeds: Feeds, heads: list[str]
) -> None:
    """Set the weight of each layer: how much the heads of the model feel a loss in it.

    The layer at its middle rank is put into the model, and nothing else.
    """
    session = Session(model)
    wanted = session.run(feeds, heads)
    for cut, layer in zip(found, layers, strict=True):
        options = sorted((o for o in layer.options if o.lost > 0), key=lambda o: o.lost)
        if not options:
            continue
        option = options[len(options) // 2]
        got = session.run(feeds, heads, parameters=_parameters(cut, option))
        change = sum(np.mean((got[n] - wanted[n]) ** 2) / np.var(wanted[n]) for n in heads)
        layer.weight = float(change) / option.lost


def _parameters(cut: Cut, option: Option) -> dict[str, Array]:
    assert option.way is not None
    rows, weight = cut.rows_at(option.way, option.rank), cut.node.inputs[1]
    array = constant(weight)
    assert weight is not None
    assert array is not None
    shaped = weight_of(cut.node, rows[None], array.shape).astype(np.float32)
    result = {weight.name or "": shaped}
    bias = cut.node.inputs[2] if len(cut.node.inputs) > 2 else None
    old, shift = constant(bias), cut.shift(rows).astype(np.float32)
    if bias is not None and old is not None and old.size == shift.size:
        result[bias.name or ""] = old + shift.reshape(old.shape)
    return result
