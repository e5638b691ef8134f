"""The layers of a model, the numbers of each of their formats, and models made of a decision."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError
from passes.base import Refusal, is_op
from passes.graph import constant, replace_constant, take_description
from passes.remove_unused import RemoveUnused
from passes.verify import verify
from quant.coverage import measure_coverage
from quant.domain import inline_functions
from quant.dynamic import emit_dynamic, smoothing
from quant.formats import FP16, INT8, integer_format
from quant.linear import corrects_bias, quantize_linear
from quant.model import Quantized
from quant.moments import rows_of
from quant.search.choice import FLOAT_BITS, HALF_BITS, Choice, Layer
from quant.selection import LINEAR
from quant.sites import granularity, sites
from quant.static import Prepared, choose_parameters, emit, prepare
from quant.store import Store, forget_formats
from quant.tensor import QuantizedTensor, quantize_tensor
from quant.weight_only import WeightOnly, product_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from quant.config import QuantizeConfig
    from quant.formats import FloatFormat, IntegerFormat
    from quant.linear import Linear
    from quant.search.choice import Assignment, Compute
    from quant.sites import Site

    Array = np.ndarray[Any, Any]

BITS = (8, 6, 5, 4, 3, 2)
PROBED_BITS = 4  # errors large enough to measure, small enough to add up


@dataclass
class Space:
    """What can be decided about one model; emits any decision, computes each layer's numbers once.

    `layers` are by the name of their weight, in graph order.
    """

    prepared: Prepared
    config: QuantizeConfig
    layers: dict[str, Layer]
    places: dict[str, list[Site]]
    input_scales: dict[str, np.float32]  # by node
    _linears: dict[tuple[str, int, float], Linear] = field(default_factory=dict)

    # Results

    def emit(self, assignment: Assignment) -> Quantized:
        """The model of a decision, verified."""
        by_node = {n: assignment[x.name] for x in self.layers.values() for n in x.nodes}
        left = {n for n, c in by_node.items() if c.compute != "int8"} | set(self.config.exclude)
        left |= self._between(left)

        def linear(node: ir.Node, input_scale: np.float32) -> Linear:
            weight = node.inputs[1]
            assert weight is not None
            return self.linear(node, input_scale, assignment[weight.name or ""].bits)

        done = emit(self.prepared, left, linear, compact=True)
        covered, weights = set(done.covered), set(done.weights)
        for compute, take in (("dynamic", self._emit_dynamic), ("float", self._emit_float)):
            chosen = {n: c.bits for n, c in assignment.items() if c.compute == compute}
            if chosen:
                nodes, names = take(done.model, chosen)
                covered, weights = covered | nodes, weights | names
        RemoveUnused().apply(done.model)
        if not self.config.keep_functions:
            inline_functions(done.model)
            forget_formats(done.model)
        verify(done.model)
        refusals = tuple(self._refusal(r) for r in done.refusals if r.node not in covered)
        coverage = measure_coverage(
            self.prepared.source, covered, weights, refusals, self.prepared.sizes
        )
        return Quantized(done.model, coverage, refusals, ())

    def probe(self, name: str, bits: int) -> ir.Model:
        """The source with the rounded weights of one layer, computed in float."""
        copy = self.prepared.source.clone()
        wanted = set(self.layers[name].nodes)
        for node in copy.graph.all_nodes():
            if node.name in wanted:
                self._put_rounded(node, name, bits)
        return copy

    # Numbers

    def linear(self, node: ir.Node, input_scale: np.float32, bits: int) -> Linear:
        """Levels, scales and bias for integers; kept, since many decisions share them."""
        key = (node.name or "", bits, float(input_scale))
        if key not in self._linears:
            moments = self.prepared.watch.moments
            self._linears[key] = quantize_linear(
                node, input_scale, self.config, moments, integer_format(bits), half_scales=True
            )
        return self._linears[key]

    def rounded(self, node: ir.Node, name: str, bits: int) -> tuple[Array, Array | None]:
        """Weight and bias as a format keeps them; None where the bias stays as it is."""
        site = self.places[name][0]
        array = constant(site.weight)
        assert array is not None
        scale = self.input_scales.get(node.name or "")
        if scale is None or bits == HALF_BITS:
            form = weight_format(bits)
            kind, _ = granularity(site, form, 0)
            return quantize_tensor(array, form, kind, search=True).real(), None
        found = self.linear(node, scale, bits)
        return found.levels * found.granularity.spread(found.scale, array), found.bias

    def local_noise(self, name: str, bits: int) -> float:
        """Noise over signal at the outputs of a layer, as calibration saw its inputs."""
        site = self.places[name][0]
        array = constant(site.weight)
        assert array is not None
        got, _ = self.rounded(site.node, name, bits)
        met = self.prepared.watch.moments.get(name)
        error = got.astype(np.float64) - array
        if met is None or not met.rows or site.node.op_type not in LINEAR:
            return _ratio(float((error**2).sum()), float((array.astype(np.float64) ** 2).sum()))
        second = met.centred if corrects_bias(site.node, self.config) else met.second
        power = [_power(rows_of(site.node, w), second) for w in (error, array)]
        return _ratio(*power)

    def _put_rounded(self, node: ir.Node, name: str, bits: int) -> None:
        weight, bias = self.rounded(node, name, bits)
        index = next(i for i, v in enumerate(node.inputs) if v is not None and v.name == name)
        replace_constant(node, index, weight.astype(np.float32))
        if bias is not None and len(node.inputs) > 2 and node.inputs[2] is not None:
            replace_constant(node, 2, bias.astype(np.float32))

    # Ways of computing

    def _between(self, left: set[str]) -> set[str]:
        """Nodes without weights whose neighbours with weights, in graph order, are all in `left`.

        What passes between two float layers must not be rounded to integers on the way.
        """
        found: set[str] = set()
        run: list[str] = []
        before = True
        for node in self.prepared.source.graph:
            name = node.name or ""
            if node.op_type not in LINEAR:
                run.append(name)
                continue
            if before and name in left:
                found |= set(run)
            before, run = name in left, []
        return found | set(run) if before else found

    def _emit_dynamic(self, model: ir.Model, chosen: Mapping[str, int]) -> _Done:
        nodes = [n for n in model.graph if _weight_name(n) in chosen and _is_product(n)]
        emit_dynamic(model.graph, nodes, self.prepared.watch.moments, smoothing(self.config))
        return {n.name or "" for n in nodes}, set(chosen)

    def _emit_float(self, model: ir.Model, chosen: Mapping[str, int]) -> _Done:
        """Weights in short formats: convolutions as integers have them, others in blocks."""
        short = {n: b for n, b in chosen.items() if b != FLOAT_BITS}
        known = {n for n, b in short.items() if b < HALF_BITS and self._is_known_conv(n)}
        covered = self._store_convs(model, {n: b for n, b in short.items() if n in known})
        for bits in sorted({b for n, b in short.items() if n not in known}):
            covered |= self._store_rest(
                model, {n for n, b in short.items() if b == bits and n not in known}, bits
            )
        return covered, set(short)

    def _is_known_conv(self, name: str) -> bool:
        nodes = [s.node for s in self.places[name]]
        return len(nodes) == 1 and is_op(nodes[0], "Conv") and nodes[0].name in self.input_scales

    def _store_convs(self, model: ir.Model, chosen: Mapping[str, int]) -> set[str]:
        store = Store(model)
        covered: set[str] = set()
        for node in list(model.graph):
            name = _weight_name(node)
            if name not in chosen or node.name is None:
                continue
            found = self.linear(node, self.input_scales[node.name], chosen[name])
            stored = QuantizedTensor(found.format, found.granularity, found.levels, found.scale)
            old = node.inputs[1]
            number = store.number(f"f{len(covered)}", stored, fold=True)
            take_description(number, old)  # type: ignore[arg-type]
            node.replace_input_with(1, number)
            if found.bias is not None and len(node.inputs) > 2:
                replace_constant(node, 2, found.bias.astype(np.float32))
            covered.add(node.name)
        return covered

    def _store_rest(self, model: ir.Model, names: set[str], bits: int) -> set[str]:
        plain = replace(self.config, exclude=(), algorithm="auto")
        moments = self.prepared.watch.moments
        work = WeightOnly(model, plain, weight_format(bits))
        work.choose()
        work.chosen = {n: places for n, places in work.chosen.items() if n in names}
        products = [n for n, places in work.chosen.items() if product_of(places)]
        work.seconds = {
            n: moments[n].second[0] for n in products if n in moments and moments[n].rows
        }
        return work.store()

    def _refusal(self, refusal: Refusal) -> Refusal:
        """The search left nodes out, not the user."""
        if refusal.reason.startswith("excluded") and refusal.node not in self.config.exclude:
            return replace(refusal, reason="in float it costs less accuracy")
        return refusal


_Done = tuple[set[str], set[str]]


def explore(model: ir.Model, feeds: Iterable[Mapping[str, Array]], config: QuantizeConfig) -> Space:
    """Calibrate, and list the layers.

    Raises:
        UsageError: wrong data or option, or nothing in the model can be quantised.

    """
    prepared = prepare(model, feeds, config, needed=False)
    places: dict[str, list[Site]] = {}
    for site, reason in sites(prepared.source):
        if reason is None and site.node.name not in config.exclude:
            places.setdefault(site.weight.name or "", []).append(site)
    places = {n: s for n, s in places.items() if len(s) == len(list(s[0].weight.uses()))}
    if not places:
        raise UsageError("no layer of this model has weights that can be quantised")
    parameters = choose_parameters(prepared.selection, prepared.ranges, config)
    scales = {
        name: parameters[node.inputs[0].name or ""].scale  # type: ignore[union-attr]
        for name, node in prepared.selection.nodes.items()
        if node.op_type in LINEAR
    }
    layers = {n: _layer(n, s, scales) for n, s in places.items()}
    return Space(prepared, config, layers, places, scales)


def _layer(name: str, places: list[Site], scales: Mapping[str, Any]) -> Layer:
    array = constant(places[0].weight)
    assert array is not None
    bits: dict[Compute, tuple[int, ...]] = {}
    if all(s.node.name in scales for s in places):
        bits["int8"] = BITS
    if product_of(places) is not None:
        bits["dynamic"] = (INT8.bits,)
    short = () if any(is_op(s.node, "Gather") for s in places) else BITS[1:]
    bits["float"] = (FLOAT_BITS, HALF_BITS, INT8.bits, *short)
    channels = array.shape[places[0].channel % array.ndim]
    nodes = tuple(s.node.name or "" for s in places)
    return Layer(name, nodes, places[0].node.op_type, array.size, channels, bits)


def weight_format(bits: int) -> IntegerFormat | FloatFormat:
    """What weights of so many bits are stored in: integers, and float16 for 16."""
    return FP16 if bits == HALF_BITS else integer_format(bits)


def uniform(space: Space, compute: Compute, bits: int) -> dict[str, Choice]:
    """Every layer alike, where it can; other layers in float with weights of 8 bits."""
    rest = Choice("float", INT8.bits)
    return {
        name: Choice(compute, bits) if bits in layer.bits.get(compute, ()) else rest
        for name, layer in space.layers.items()
    }


def _weight_name(node: ir.Node) -> str:
    value = node.inputs[1] if len(node.inputs) > 1 else None
    return "" if value is None else value.name or ""


def _is_product(node: ir.Node) -> bool:
    return is_op(node, "MatMul", "Gemm")


def _power(rows: Array, second: Array) -> float:
    """Mean square of the outputs of weights [groups, outputs, K]."""
    rows = rows.astype(np.float64)
    return float((np.matmul(rows, second) * rows).sum())


def _ratio(noise: float, signal: float) -> float:
    return noise / signal if signal > 0 else 0.0
