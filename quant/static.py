"""Static post-training quantisation to standard QDQ ONNX.

Every quantised value becomes QuantizeLinear -> DequantizeLinear behind its producer; every integer
node reads DequantizeLinear and writes into QuantizeLinear, the form that engines fuse into integer
kernels (ONNX operators QuantizeLinear and DequantizeLinear; Jacob et al. 2018 for the arithmetic).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from passes.base import Refusal, all_nodes, is_op
from passes.graph import constant
from passes.mean_to_pool import MeanToPool
from passes.remove_unused import RemoveUnused
from quant.calibrate import calibrate
from quant.coverage import measure_coverage
from quant.equalize import equalize, smooth_static
from quant.formats import INT4, INT8, INT16, UINT4, UINT8, UINT16, IntegerFormat
from quant.linear import SHORT, Linear, quantize_linear, weight_format
from quant.mean_error import correct_biases
from quant.model import Quantized
from quant.moments import Watch
from quant.parameters import Parameters, Range, activation_parameters
from quant.qdq import Emitter
from quant.reconstruct import learns, reconstruct
from quant.selection import LINEAR, MOVERS, Selection, is_layer, select
from quant.sequential import in_sequence, round_in_sequence
from quant.store import raise_opset

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    import numpy as np
    import onnx_ir as ir

    from passes.base import Refusal
    from quant.config import QuantizeConfig

    Array = np.ndarray[Any, Any]
    Quantizer = Callable[[ir.Node, np.float32], Linear]
    Grids = dict[str, Parameters]  # of values
    Linears = dict[str, Linear]  # of nodes
    Refine = Callable[[ir.Model, Selection, Grids, Linears], tuple[Linears, Grids]]

FORMATS = {"uint8": UINT8, "int8": INT8}
WIDE = {"uint8": UINT16, "int8": INT16}
WIDE_SINCE = 21  # the opset from which on QuantizeLinear writes 16 bits
SHORT_FORMATS = {"uint8": UINT4, "int8": INT4}
SHORT_SCHEMES = ("w4a4", "w2a4")  # activations of 4 bits
SMALL_SHARE = 0.1  # of all weights


def quantize_static(
    model: ir.Model,
    feeds: Iterable[Mapping[str, np.ndarray[Any, Any]]],
    config: QuantizeConfig,
) -> Quantized:
    """Calibrate and emit QDQ; weights symmetric, int8 or packed, activations per tensor.

    Raises:
        UsageError: wrong data or option, or nothing in the model can be quantised.

    """
    prepared = prepare(model, feeds, config)

    def refine(
        copy: ir.Model, chosen: Selection, parameters: Grids, linears: Linears
    ) -> tuple[Linears, Grids]:
        if in_sequence(config):
            linears = round_in_sequence(copy, chosen, parameters, linears, feeds, config)
        if learns(config):
            linears, parameters = reconstruct(copy, chosen, parameters, linears, feeds, config)
        if config.empirical_bias:
            correct_biases(copy, chosen, parameters, linears, feeds)
        return linears, parameters

    done = emit(prepared, config.exclude, chosen_linear(prepared), refine=refine)
    return quantised(prepared, done)


@dataclass(frozen=True)
class Prepared:
    """What calibration found of a model: enough to quantise it, or a part of it, many times.

    source: what results are emitted from; selection: all that can be quantised, in a copy of it;
    ranges of its values; sizes of one sample.
    """

    source: ir.Model
    selection: Selection
    config: QuantizeConfig
    ranges: Mapping[str, Range]
    watch: Watch
    sizes: Mapping[str, tuple[int, ...]]
    unequal: tuple[Refusal, ...] = ()  # what could not be evened out


@dataclass(frozen=True)
class Emitted:
    """A model with integer nodes: names of source nodes, and of their weights, that are covered."""

    model: ir.Model
    covered: set[str]
    weights: set[str]
    refusals: tuple[Refusal, ...]


def prepare(
    model: ir.Model,
    feeds: Iterable[Mapping[str, Array]],
    config: QuantizeConfig,
    *,
    needed: bool = True,
) -> Prepared:
    """Run the samples through the float model; `needed`: something in it must be quantisable.

    Raises:
        UsageError: wrong data or option, or nothing in the model can be quantised.

    """
    if any(is_op(n, "QuantizeLinear", "DequantizeLinear") for n in all_nodes(model)):
        raise UsageError("the model is quantised already; start from its float source")
    feeds = _repeatable(feeds, config)
    source = model.clone()
    MeanToPool().apply(source)
    source, unequal = _evened_out(source, feeds, config)
    copy = source.clone()
    chosen = select(copy, config.exclude)
    if needed and not any(n.op_type in LINEAR for n in chosen.nodes.values()):
        first = f": {chosen.refusals[0].reason}" if chosen.refusals else ""
        raise UsageError(f"no Conv, Gemm or MatMul of this model can be quantised{first}")
    varying = [n for n, v in chosen.values.items() if constant(v) is None]
    sizes, feeds = _sizes(feeds)
    watch = _watch(chosen, config)
    ranges = calibrate(copy, feeds, varying, config, watch)
    return Prepared(source, chosen, config, ranges, watch, sizes, tuple(unequal))


def emit(
    prepared: Prepared,
    exclude: Collection[str],
    linear: Quantizer,
    *,
    compact: bool = False,
    refine: Refine | None = None,
) -> Emitted:
    """Quantise a copy, but for the nodes in `exclude`; `linear` makes the numbers of weights.

    With `compact` what engines can compute when they load the file is not stored in it. `refine`
    betters all numbers before they are written.
    """
    copy, config = prepared.source.clone(), prepared.config
    chosen = select(copy, exclude)
    parameters = choose_parameters(chosen, prepared.ranges, config)
    linears = _linears(chosen, parameters, linear)
    if refine is not None:
        linears, parameters = refine(copy, chosen, parameters, linears)
    emitter = Emitter(copy, chosen, parameters, linears, compact)
    emitter.emit()
    if activation_format(config).bits > INT8.bits:
        raise_opset(copy, WIDE_SINCE)
    RemoveUnused().apply(copy)
    covered = {*chosen.nodes, *(c.name or "" for c in chosen.clamps.values())}
    refusals = (*chosen.refusals, *prepared.unequal)
    return Emitted(copy, covered, emitter.weights, refusals)


def chosen_numbers(prepared: Prepared) -> tuple[Grids, Linears]:
    """Parameters of values and numbers of layers as the options choose them."""
    parameters = choose_parameters(prepared.selection, prepared.ranges, prepared.config)
    return parameters, _linears(prepared.selection, parameters, chosen_linear(prepared))


def chosen_linear(prepared: Prepared) -> Quantizer:
    """Chooses the numbers of one layer by the options."""
    config, moments = prepared.config, prepared.watch.moments
    wide = wide_nodes(prepared.selection, config)

    def linear(node: ir.Node, input_scale: np.float32) -> Linear:
        form = weight_format(config, short=node.name not in wide)
        return quantize_linear(node, input_scale, config, moments, form)

    return linear


def quantised(prepared: Prepared, done: Emitted) -> Quantized:
    """The result with what it covers."""
    coverage = measure_coverage(
        prepared.source, done.covered, done.weights, done.refusals, prepared.sizes
    )
    return Quantized(done.model, coverage, done.refusals, _notes(prepared.watch))


def _repeatable(
    feeds: Iterable[Mapping[str, Array]], config: QuantizeConfig
) -> Iterable[Mapping[str, Array]]:
    """Samples that are read again by some options must not be a stream that ends."""
    again = config.equalize or config.smooth or config.empirical_bias
    again = again or learns(config) or in_sequence(config)
    if again and iter(feeds) is feeds:
        raise UsageError("these options read the samples more than once; give a list of feeds")
    return feeds


def _evened_out(
    source: ir.Model, feeds: Iterable[Mapping[str, Array]], config: QuantizeConfig
) -> tuple[ir.Model, list[Refusal]]:
    """What `equalize` and `smooth` ask for; exact in float."""
    refusals: list[Refusal] = []
    if config.equalize:
        done = equalize(source, feeds, config.exclude)
        source, refusals = done.model, done.refusals
    if config.smooth:
        done = smooth_static(source, feeds, config.smooth, config.exclude)
        source, refusals = done.model, refusals or done.refusals
    return source, refusals


def wide_nodes(chosen: Selection, config: QuantizeConfig) -> list[str]:
    """The first and the last product keep 8 bits where the others have less: they need them most.

    Where activations have 8 bits only if they are a small part of all weights.
    """
    if config.scheme not in SHORT:
        return []
    products = {name: node for name, node in chosen.nodes.items() if node.op_type in LINEAR}
    ends = [*products][:1] + [*products][-1:]
    if config.scheme in SHORT_SCHEMES:
        return ends
    sizes = {name: _size(node) for name, node in products.items()}
    return [name for name in ends if sizes[name] <= SMALL_SHARE * sum(sizes.values())]


def _size(node: ir.Node) -> int:
    weight = constant(node.inputs[1])
    return 0 if weight is None else weight.size


def _watch(chosen: Selection, config: QuantizeConfig) -> Watch:
    """Gathers moments of the inputs of all weights, where an option asks for them."""
    wanted = config.rounding != "nearest" or config.bias_correction
    return Watch(n for n in chosen.nodes.values() if n.op_type in LINEAR and wanted)


def _notes(watch: Watch) -> tuple[str, ...]:
    return tuple(
        f"the weights of {name!r} are rounded to nearest: what they meet takes too much memory"
        for name in watch.too_large
    )


def _sizes(
    feeds: Iterable[Mapping[str, Array]],
) -> tuple[dict[str, tuple[int, ...]], Iterable[Mapping[str, Array]]]:
    """Shapes of one sample as the data has them, and the feeds; a stream gets its first back."""
    rest = iter(feeds)
    first = next(rest, None)
    if first is None:
        return {}, ()
    sizes = {n: (1, *x.shape[1:]) for n, x in first.items() if x.ndim}
    return sizes, chain([first], rest) if rest is feeds else feeds


def activation_format(config: QuantizeConfig, *, short: bool = True) -> IntegerFormat:
    """What a static scheme stores activations in; without `short` at least 8 bits."""
    if config.scheme in SHORT_SCHEMES and short:
        return SHORT_FORMATS[config.activations]
    return (WIDE if config.scheme == "w8a16" else FORMATS)[config.activations]


def choose_parameters(
    chosen: Selection, ranges: Mapping[str, Range], config: QuantizeConfig
) -> Grids:
    """Scale and zero point of every quantised value; movers pass theirs on."""
    long = _read_by(chosen, wide_nodes(chosen, config))
    result: Grids = {}
    for name, value in chosen.values.items():
        array = constant(value)
        span = ranges[name] if array is None else Range(array.min(), array.max())
        form = activation_format(config, short=name not in long)
        result[name] = activation_parameters(span, form)
    for name, node in chosen.nodes.items():  # in graph order, so that chains settle in one walk
        if node.op_type in MOVERS:
            source = node.inputs[chosen.inputs[name][0]]
            assert source is not None
            for output in node.outputs:
                result[output.name or ""] = result[source.name or ""]
    return result


def _linears(chosen: Selection, parameters: Grids, linear: Quantizer) -> Linears:
    """Levels, scales and biases of every layer, by the name of its node."""
    return {
        name: linear(node, parameters[node.inputs[0].name or ""].scale)
        for name, node in chosen.nodes.items()
        if is_layer(node) and node.inputs[0] is not None
    }


def _read_by(chosen: Selection, wide: Collection[str]) -> set[str]:
    """The values that these nodes read, and what movers made them of."""
    found = {_first(chosen, name) for name in wide}
    for name, node in reversed(chosen.nodes.items()):
        if node.op_type in MOVERS and any(o.name in found for o in node.outputs):
            found.add(_first(chosen, name))
    return found


def _first(chosen: Selection, name: str) -> str:
    value = chosen.nodes[name].inputs[chosen.inputs[name][0]]
    assert value is not None
    return value.name or ""
