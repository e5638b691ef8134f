"""GPTQ layer by layer, each behind the quantised layers before it, whose errors it makes up for.

A layer that meets x' instead of x first gets the weights V that come nearest to its float outputs,

    min E |W x - V x'|^2 + r |W - V|^2:  V = W (E[x x'] + r) (E[x' x'] + r)^-1,

and V is rounded with the moments of x' (Frantar et al. 2022, section 3; Li et al. 2025, "GPTAQ",
for calibration that knows both x and x'). The scales of short weights are those of least error of
the outputs, not of the weights; the bias takes the mean error, with that of x' in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.graph import constant
from quant.formats import INT8
from quant.gptq import output_error, round_rows
from quant.linear import SHORT, corrects_bias
from quant.mean_error import rounded_by
from quant.moments import is_large, met_rows, rows_of, shrinkage, weight_of
from quant.parameters import weight_limits, weight_scale
from quant.simulate import Held, fitting, segments
from quant.tensor import SHARES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from quant.config import QuantizeConfig
    from quant.linear import Linear
    from quant.parameters import Parameters
    from quant.selection import Selection
    from quant.simulate import Segment

    Array = np.ndarray[Any, Any]

TRUST = 0.01  # r over the mean power of an input: nearly singular moments move no weight far


def in_sequence(config: QuantizeConfig) -> bool:
    """Are layers rounded one behind the other?"""
    return config.rounding == "sequential" or (config.rounding == "auto" and config.scheme in SHORT)


def round_in_sequence(
    model: ir.Model,
    chosen: Selection,
    parameters: Mapping[str, Parameters],
    linears: Mapping[str, Linear],
    feeds: Iterable[Mapping[str, Array]],
    config: QuantizeConfig,
) -> dict[str, Linear]:
    """Better levels, scales and biases.

    A weight with several readers, or whose moments take too much memory, keeps what it has.
    """
    order = segments(model, chosen, 1)
    batches = fitting(feeds, order)
    found = dict(linears)
    rounded = rounded_by(chosen, parameters, found)
    exact, noisy = Held(batches, order, None), Held(batches, order, rounded)
    for segment in order:
        for node in segment.layers:
            name = node.name or ""
            if _is_alone(node):
                met = _meet(node, segment, (exact, noisy), parameters)
                found[name] = _solved(node, found[name], met, parameters, config)
                rounded.weights |= rounded_by(chosen, parameters, {name: found[name]}).weights
                rounded.biases[name] = found[name].bias
        exact.advance(segment)
        noisy.advance(segment)
    return found


def _is_alone(node: ir.Node) -> bool:
    weight, array = node.inputs[1], constant(node.inputs[1])
    assert weight is not None
    assert array is not None
    return len(list(weight.uses())) == 1 and not is_large(rows_of(node, array).shape)


@dataclass
class _Pairs:
    """Moments of what a layer meets in float, x, and behind rounded layers, x'."""

    rows: int = 0
    both: Array = field(default_factory=lambda: np.zeros(()))  # sum of x' x'
    cross: Array = field(default_factory=lambda: np.zeros(()))  # sum of x x'
    exact: Array = field(default_factory=lambda: np.zeros(()))  # sum of x
    noisy: Array = field(default_factory=lambda: np.zeros(()))  # sum of x'

    def add(self, exact: Array, noisy: Array) -> None:
        """Account for the same rows [groups, rows, K] of both."""
        self.rows += exact.shape[1]
        self.both = self.both + np.matmul(noisy.swapaxes(1, 2), noisy)
        self.cross = self.cross + np.matmul(exact.swapaxes(1, 2), noisy)
        self.exact = self.exact + exact.sum(axis=1, dtype=np.float64)
        self.noisy = self.noisy + noisy.sum(axis=1, dtype=np.float64)

    def expected(self, *, centred: bool) -> tuple[Array, Array]:
        """E[x' x'] and E[x x'], about the means where a bias takes these."""
        both, cross = self.both / self.rows, self.cross / self.rows
        if not centred:
            return both, cross
        exact, noisy = self.exact / self.rows, self.noisy / self.rows
        return both - noisy[:, :, None] * noisy[:, None], cross - exact[:, :, None] * noisy[:, None]


def _meet(
    node: ir.Node,
    segment: Segment,
    held: tuple[Held, Held],
    parameters: Mapping[str, Parameters],
) -> _Pairs:
    assert node.inputs[0] is not None
    name, found = node.inputs[0].name or "", _Pairs()
    for number, values in enumerate(zip(*(h.values(segment, name) for h in held), strict=True)):
        exact, noisy = values[0], parameters[name].real(values[1])
        if exact.size:
            pair = (met_rows(node, x.astype(np.float32), number) for x in (exact, noisy))
            found.add(*pair)
    return found


def _solved(
    node: ir.Node,
    linear: Linear,
    met: _Pairs,
    parameters: Mapping[str, Parameters],
    config: QuantizeConfig,
) -> Linear:
    if not met.rows:
        return linear
    array, source = constant(node.inputs[1]), node.inputs[0]
    assert array is not None
    assert source is not None
    weight = rows_of(node, array).astype(np.float64)
    centred = corrects_bias(node, config)
    both, cross = met.expected(centred=centred)
    both, moved = _moved(weight, both, cross, met.rows)
    found = _best_scale(node, linear, moved, both, float(parameters[source.name or ""].scale))
    if not centred:
        return found
    real = rows_of(node, found.levels * found.granularity.spread(found.scale, found.levels))
    means = ((weight, met.exact), (real, met.noisy))
    wanted, got = (np.einsum("gok,gk->go", w, m / met.rows).reshape(-1) for w, m in means)
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    shift = wanted - got
    return replace(found, bias=shift if bias is None else bias.reshape(-1) + shift)


def _moved(weight: Array, both: Array, cross: Array, rows: int) -> tuple[Array, Array]:
    """The moments to round with, and the weights that make up for what x' has lost."""
    size = both.shape[-1]
    power = np.trace(both, axis1=1, axis2=2) / size
    doubt = shrinkage(both, rows)
    trust = np.where(power > 0, TRUST * power, 1.0)[:, None, None] * np.eye(size) + doubt
    # Of the transposed equation (E[x' x'] + r) V' = (E[x' x] + r) W'.
    wanted = np.matmul(cross.swapaxes(1, 2) + trust, weight.swapaxes(1, 2))
    return both + doubt, np.linalg.solve(both + trust, wanted).swapaxes(1, 2)


def _best_scale(
    node: ir.Node, linear: Linear, rows: Array, second: Array, input_scale: float
) -> Linear:
    """Rounded at the scales whose outputs are best; int8 keeps its own."""
    form, granularity = linear.format, linear.granularity
    weight = weight_of(node, rows, linear.levels.shape)
    largest = granularity.reduce(np.maximum, np.abs(weight)) / weight_limits(form)[1]
    short = form.bits < INT8.bits
    levels, scale, least = linear.levels, linear.scale, np.full(linear.scale.shape, np.inf)
    for candidate in [largest * share for share in SHARES] if short else [linear.scale]:
        tried = weight_scale(weight, granularity, linear.bias, input_scale, candidate)
        steps = np.broadcast_to(granularity.spread(tried, weight), weight.shape)
        spread = rows_of(node, steps).astype(np.float64)
        rounded = round_rows(rows, second, spread, *weight_limits(form))
        errors = output_error(rows - rounded * spread, second).reshape(-1)
        error = errors if scale.ndim else errors.sum()
        better = error < least
        new = weight_of(node, rounded, weight.shape).astype(np.int8)
        levels = np.where(granularity.spread(better, weight), new, levels)
        scale, least = np.where(better, tried, scale), np.where(better, error, least)
    return replace(linear, levels=levels, scale=scale)
