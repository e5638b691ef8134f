"""Weights in a short format, computation in float: MatMul, Gemm, Conv, recurrent nets, tables.

MatMul and Gemm read DequantizeLinear, which ONNX Runtime fuses into its own kernel. Weights of
other operators are rebuilt by operators that engines fold when they load the file. Tables are read
in their short form: only the rows that were asked for become float.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime import Session
from infer_runtime.errors import UsageError
from passes.base import Refusal, all_nodes, is_op
from passes.graph import constant, forget_names
from passes.remove_unused import RemoveUnused
from quant.coverage import measure_coverage
from quant.formats import FORMATS, INT8, Format, IntegerFormat
from quant.gptq import round_rows
from quant.granularity import PerAxis, PerBlock
from quant.hqq import hqq
from quant.model import Quantized
from quant.moments import Watch, rows_of
from quant.scaling import activation_aware, scale_input
from quant.sites import Site, granularity, sites
from quant.store import Store
from quant.table import read_table, table_reason
from quant.tensor import QuantizedTensor, group_parameters, quantize_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from quant.config import QuantizeConfig

    Array = np.ndarray[Any, Any]

SUFFIX = "-weight"
NEED_DATA = ("gptq", "awq")
SHORT_BLOCK = 32  # what ONNX Runtime's kernel is fastest and most exact at, for less than 8 bits
_NAMES = {"fp8": "fp8-e4m3"}


def quantize_weights(
    model: ir.Model, feeds: Iterable[Mapping[str, Array]], config: QuantizeConfig
) -> Quantized:
    """Quantise a copy by `config.scheme`, FORMAT-weight.

    Raises:
        UsageError: options that contradict each other, wrong data, or nothing to quantise.
        ModelError: the format needs an opset at which the model means something else.

    """
    copy = model.clone()
    forget_names(copy)  # new ones in a branch must be new around it too
    work = WeightOnly(copy, config, weight_format(config))
    work.choose()
    if not work.chosen:
        first = f": {work.refusals[0].reason}" if work.refusals else ""
        raise UsageError(f"no weight of this model can be quantised{first}")
    if _algorithm(config, work.format) in NEED_DATA:
        work.learn(feeds)
    done = work.store()
    RemoveUnused().apply(copy)
    refusals = tuple(work.refusals)
    coverage = measure_coverage(model, done, work.weights, refusals)
    return Quantized(copy, coverage, refusals, tuple(work.notes))


def weight_format(config: QuantizeConfig) -> Format:
    """The format that a weight-only scheme names."""
    name = config.scheme.removesuffix(SUFFIX)
    return FORMATS[_NAMES.get(name, name)]


def block_size(config: QuantizeConfig, form: Format) -> int:
    """Weights that share a scale along the summed axis; 0 for one scale for each channel."""
    if config.block_size is not None:
        return config.block_size
    return SHORT_BLOCK if isinstance(form, IntegerFormat) and form.bits < INT8.bits else 0


def _algorithm(config: QuantizeConfig, form: Format) -> str:
    """What `auto` means: GPTQ where rounding costs something, else the nearest level."""
    integer = isinstance(form, IntegerFormat)
    if config.algorithm == "auto":
        return "gptq" if integer and form.bits < INT8.bits else "mse"
    if not integer and config.algorithm not in ("rtn", "mse"):
        raise UsageError(f"--algorithm {config.algorithm} is for integers, not for {form.name}")
    return config.algorithm


@dataclass
class WeightOnly:
    """One run: which weights, what is known of their inputs, what was done."""

    model: ir.Model
    config: QuantizeConfig
    format: Format
    chosen: dict[str, list[Site]] = field(default_factory=dict)
    seconds: dict[str, Array] = field(default_factory=dict)  # E[x x'] by weight
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    weights: set[str] = field(default_factory=set)

    def choose(self) -> None:
        """Places by weight: a weight with several readers is stored once."""
        check_excluded(self.model, self.config.exclude)
        for site, reason in sites(self.model):
            node = site.node
            if node.name in self.config.exclude:
                reason = "excluded by the user"
            if reason is not None:
                self.refusals.append(Refusal(node.name or "?", node.op_type, reason))
                continue
            self.chosen.setdefault(site.weight.name or "", []).append(site)
        for name, places in list(self.chosen.items()):
            others = [n for n, _ in places[0].weight.uses() if n.name in self.config.exclude]
            if others:  # it stays in the file as it is: short copies beside it save nothing
                del self.chosen[name]
                reason = f"its weight {name} is kept for {others[0].name}, which is excluded"
                self.refusals += [
                    Refusal(s.node.name or "?", s.node.op_type, reason) for s in places
                ]

    def learn(self, feeds: Iterable[Mapping[str, Array]]) -> None:
        """Moments of the inputs of products; AWQ then scales the inputs."""
        products = [s.node for places in self.chosen.values() if (s := product_of(places))]
        watch = Watch(products)
        observe_values(self.model, feeds, watch)
        self.seconds = {n: m.second[0] for n, m in watch.moments.items() if m.rows}
        self.notes += [
            f"the weights of {n!r} are rounded without data: what they meet takes too much memory"
            for n in watch.too_large
        ]
        if self.config.algorithm == "awq":
            outer = [n for n in products if n.graph is self.model.graph]
            for nodes in by_input(n for n in outer if _name(n.inputs[1]) in self.seconds):
                self._scale(nodes)

    def _scale(self, nodes: list[ir.Node]) -> None:
        names = [_name(n.inputs[1]) for n in nodes]
        second = self.seconds[names[0]]
        weights = [rows_of(n, _array(n.inputs[1]))[0] for n in nodes]
        scale = activation_aware(weights, second, lambda rows: self._quantised(rows).real())
        if np.allclose(scale, 1):
            return
        scale_input(nodes, scale)  # each weight has one reader, and keeps its name
        self.seconds |= dict.fromkeys(names, second / np.outer(scale, scale))

    def store(self) -> set[str]:
        """Write every chosen weight; returns the names of the nodes that read them."""
        done: set[str] = set()
        store = Store(self.model)
        for name, places in self.chosen.items():
            weight = places[0].weight
            tables = [s for s in places if is_op(s.node, "Gather")]
            rest = [s for s in places if s not in tables]
            if tables:
                rest += self._store_tables(store, name, tables)
            if rest:
                quantised = self._of_site(rest[0], bool(tables))
                fold = not all(is_op(s.node, "MatMul", "Gemm") for s in rest)
                number = store.number(name, quantised, fold=fold)
                number.shape, number.type = ir.Shape(quantised.levels.shape), weight.type
                weight.replace_all_uses_with(number)
            self.weights.add(name)
            done |= {s.node.name or "" for s in places}
        return done

    def _store_tables(self, store: Store, name: str, tables: list[Site]) -> list[Site]:
        """Tables that only Gathers read are read in their short form; returns what is left."""
        weight = tables[0].weight
        form = self._table_format()
        alone = len(tables) == len(list(weight.uses()))
        if not alone or any(table_reason(s.node, form) for s in tables):
            return tables
        array = constant(weight)
        assert array is not None
        quantised = quantize_tensor(array, form, PerAxis(0), search=True)
        read_table(store, name, quantised, [s.node for s in tables])
        return []

    def _table_format(self) -> Format:
        """8 bits at least: rows are looked up, not summed, so that their errors do not cancel."""
        form = self.format
        return INT8 if isinstance(form, IntegerFormat) and form.bits < INT8.bits else form

    def _of_site(self, site: Site, is_table: bool) -> QuantizedTensor:
        array = constant(site.weight)
        assert array is not None
        if is_table:
            return quantize_tensor(array, self._table_format(), PerAxis(0), search=True)
        if is_op(site.node, "MatMul", "Gemm") and array.ndim == 2:
            return self._product(site, array)
        kind, note = granularity(site, self.format, 0)
        assert note is None
        return quantize_tensor(array, self.format, kind, search=self.config.algorithm != "rtn")

    def _product(self, site: Site, array: Array) -> QuantizedTensor:
        """Quantised as rows [outputs, inputs], stored as the node reads it."""
        _, note = granularity(site, self.format, block_size(self.config, self.format))
        if note is not None:
            self.notes.append(note)
        found = self._quantised(rows_of(site.node, array)[0], self.seconds.get(_name(site.weight)))
        if _stores_rows(site.node):
            if len(list(site.weight.uses())) > 1:
                return found
            # ONNX Runtime 1.31 fuses only products that read [inputs, outputs].
            site.node.attributes["transB"] = ir.AttrInt64("transB", 0)
        return _transposed(found)

    def _quantised(self, rows: Array, second: Array | None = None) -> QuantizedTensor:
        """A matrix [outputs, inputs] by the algorithm that was asked for."""
        block = block_size(self.config, self.format)
        kind = PerBlock(1, block) if block and rows.shape[1] % block == 0 else PerAxis(0)
        algorithm = _algorithm(self.config, self.format)
        form = self.format
        if isinstance(form, IntegerFormat) and algorithm == "hqq":
            return hqq(rows, form, kind)
        if isinstance(form, IntegerFormat) and algorithm == "gptq" and second is not None:
            return _compensated(rows, second, form, kind)
        return quantize_tensor(rows, form, kind, search=algorithm != "rtn")


def _compensated(
    rows: Array, second: Array, form: IntegerFormat, kind: PerAxis | PerBlock
) -> QuantizedTensor:
    """GPTQ at the scales that are best for each group by itself."""
    scale, zero = group_parameters(rows, form, kind, search=True)
    steps = kind.spread(scale, rows)
    offset = np.zeros((), np.int64) if zero is None else kind.spread(zero.astype(np.int64), rows)
    limits = form.low - offset, form.high - offset
    levels = round_rows(rows[None], second[None], steps[None], *limits)[0] + offset
    return QuantizedTensor(form, kind, levels.astype(form.dtype), scale, zero)


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""


def _array(value: ir.Value | None) -> Array:
    array = constant(value)
    assert array is not None
    return array


def _stores_rows(node: ir.Node) -> bool:
    """Does the node store its weight as [outputs, inputs]?"""
    return is_op(node, "Gemm") and node.attributes.get_int("transB", 0) == 1


def by_input(nodes: Iterable[ir.Node]) -> list[list[ir.Node]]:
    """Nodes in order, together with those that read the same first input."""
    groups: dict[str, list[ir.Node]] = {}
    for node in nodes:
        groups.setdefault(_name(node.inputs[0]), []).append(node)
    return list(groups.values())


def observe_values(model: ir.Model, feeds: Iterable[Mapping[str, Array]], watch: Watch) -> None:
    """Run the samples and let `watch` see all values.

    Raises:
        UsageError: no samples, or a value that is NaN or infinite.

    """
    session, runs = Session(model), 0

    def observe(name: str, value: Array) -> None:
        if watch.sees(name) and not np.isfinite(value).all():
            raise UsageError(
                f"calibration sample batch {runs}: activation {name!r} holds NaN or infinity"
            )
        watch.see(name, value)

    for feed in feeds:
        session.run(feed, [], observe=observe)
        watch.next_batch()
        runs += 1
    if not runs:
        raise UsageError("no calibration samples: the data holds less than one batch")


def check_excluded(model: ir.Model, exclude: Iterable[str]) -> None:
    """UsageError for a name that no node has."""
    names = {n.name for n in all_nodes(model)}
    for name in exclude:
        if name not in names:
            raise UsageError(f"--exclude {name!r}: the model has no such node")


def product_of(places: list[Site]) -> Site | None:
    """The only reader of a weight of two axes, a MatMul or Gemm."""
    site = places[0]
    single = len(places) == 1 and len(list(site.weight.uses())) == 1
    flat = single and is_op(site.node, "MatMul", "Gemm") and len(site.weight.shape or ()) == 2
    plain = flat and site.node.attributes.get_int("transA", 0) == 0
    return site if plain else None


def _transposed(x: QuantizedTensor) -> QuantizedTensor:
    """The same of the transposed matrix."""
    kind = x.granularity
    if isinstance(kind, (PerAxis, PerBlock)):
        kind = replace(kind, axis=1 - kind.axis)
    blocks = isinstance(kind, PerBlock)
    zero = None if x.zero_point is None else (x.zero_point.T if blocks else x.zero_point)
    scale = x.scale.T if blocks else x.scale
    return QuantizedTensor(x.format, kind, x.levels.T, scale, zero)
