"""Channels between layers get sizes that 8 bits hold better; the float model stays the same.

- From the weights: Nagel et al., Data-Free Quantization (2019), section 4.1.
- From the activations: SmoothQuant (Xiao et al. 2023), equation 4, also along residual connections.
- Means of channels move into the next biases: after Nagel et al., section 4.1.3.

Factors are powers of two, so that no float operation rounds differently.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import MismatchError
from passes.base import Refusal, is_op
from passes.graph import constant
from passes.proof import Proof
from passes.weights import fold_affine, set_bias
from quant.channels import ChannelRanges, channel_ranges
from quant.groups import Group, by_input_channel, groups, weight_array
from quant.moments import rows_of
from quant.scaling import scale_input, smooth
from quant.selection import CLAMPS, FOLLOWERS, LINEAR, MOVERS, weight_reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import onnx_ir as ir

    Array = np.ndarray[Any, Any]

SWEEPS = 20
LARGEST_EXPONENT = 8  # channels that never occur are not scaled to infinity
TOLERANCE = 1e-4  # of moved means, relative to the largest output: float32 sums in another order


@dataclass
class Equalized:
    """A changed copy, and what stayed as it was."""

    model: ir.Model
    refusals: list[Refusal] = field(default_factory=list)


def equalize(
    model: ir.Model, feeds: Iterable[Mapping[str, Array]], exclude: Collection[str] = ()
) -> Equalized:
    """Even out channels by the weights around them, then take means into biases.

    Args:
        model: float; it is not changed.
        feeds: samples, read once; the first batch also proves the outputs.
        exclude: names of nodes whose weights stay.

    Raises:
        UsageError: no samples, or an activation that is not finite.

    """
    batches = iter(feeds)
    first = next(batches, None)
    copy = model.clone()
    found, refusals = groups(copy, exclude)
    for _ in range(SWEEPS):
        changed = [_even_out(group) for group in found]
        if not any(changed):
            break
    if first is None:
        channel_ranges(copy, (), {})  # says that there are no samples
        return Equalized(copy, refusals)
    proof = Proof.of(model, [first], TOLERANCE)
    proof.check_outputs(copy)
    return Equalized(_absorb(copy, proof, chain([first], batches), exclude, refusals), refusals)


def _even_out(group: Group) -> bool:
    """sqrt(r_out / r_in) for each channel (equation 11); False when nothing is to be done."""
    written = np.max([_outputs(n) for n in group.writers], axis=0)
    read = np.max([_inputs(n) for n in group.readers], axis=0)
    factors = _powers_of_two(np.sqrt(_ratio(written, read)))
    if np.all(factors == 1):
        return False
    group.scale(factors)
    return True


def _outputs(node: ir.Node) -> Array:
    """max|W| of each output channel."""
    return np.asarray(np.abs(rows_of(node, weight_array(node))).max(axis=2).reshape(-1))


def _inputs(node: ir.Node) -> Array:
    """max|W| of each input channel."""
    return np.asarray(np.abs(by_input_channel(node)).max(axis=(1, 3)).reshape(-1))


def _ratio(a: Array, b: Array) -> Array:
    """a / b, 1 where one of them is 0."""
    return np.divide(a, b, out=np.ones_like(a, dtype=np.float64), where=(a > 0) & (b > 0))


def _powers_of_two(factors: Array) -> Array:
    exponents = np.rint(np.log2(factors))
    return np.asarray(2.0 ** np.clip(exponents, -LARGEST_EXPONENT, LARGEST_EXPONENT))


# Means into biases


def _absorb(
    model: ir.Model,
    proof: Proof,
    feeds: Iterable[Mapping[str, Array]],
    exclude: Collection[str],
    refusals: list[Refusal],
) -> ir.Model:
    """Shift every chain that can be shifted; the whole is undone when the outputs change."""
    before = model.clone()
    chains = [c for g in groups(model, exclude)[0] if (c := _chain(g)) is not None]
    if not chains:
        return model
    names = {c.outputs[0].name or "": 1 if is_op(c, "Conv") else -1 for c, _ in chains}
    ranges = channel_ranges(model, feeds, names)
    for node, readers in chains:
        _shift(node, readers, ranges)
    try:
        proof.check_outputs(model)
    except MismatchError as error:
        refusals.append(Refusal("", "", f"no means were moved into biases: {error}"))
        return before
    return model


def _chain(group: Group) -> tuple[ir.Node, Sequence[ir.Node]] | None:
    """One layer, a Relu or nothing, layers that see no padding and can have a bias."""
    between = [v.producer() for v in group.values]
    plain = all(n is not None and is_op(n, *LINEAR, "Relu") for n in between)
    if len(group.writers) > 1 or not plain or len(between) > 2:
        return None
    if any(is_op(n, "MatMul") or _is_padded(n) for n in (*group.writers, *group.readers)[1:]):
        return None
    return None if is_op(group.writers[0], "MatMul") else (group.writers[0], group.readers)


def _is_padded(node: ir.Node) -> bool:
    pads = node.attributes["pads"].as_ints() if "pads" in node.attributes else ()
    return any(pads) or node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _shift(node: ir.Node, readers: Sequence[ir.Node], ranges: ChannelRanges) -> None:
    """The readers add what the writer leaves out: the middle of what was seen of each channel.

    Behind a Relu only what was never cut off: the least that was seen, where that is positive.
    """
    name = node.outputs[0].name or ""
    if name not in ranges.low:
        return
    low, high = ranges.low[name].astype(np.float64), ranges.high[name].astype(np.float64)
    clamped = any(is_op(user, "Relu") for user, _ in node.outputs[0].uses())
    means = np.maximum(low, 0) if clamped else (low + high) / 2
    if not np.any(means):
        return
    fold_affine(node, None, -means)
    for reader in readers:
        weights = by_input_channel(reader)
        moved = np.einsum("goct,gc->go", weights, means.reshape(len(weights), -1)).reshape(-1)
        bias = constant(reader.inputs[2]) if len(reader.inputs) > 2 else None
        set_bias(reader, (moved if bias is None else bias.reshape(-1) + moved).astype(np.float32))


# From the activations


def smooth_static(
    model: ir.Model,
    feeds: Iterable[Mapping[str, Array]],
    strength: float,
    exclude: Collection[str] = (),
) -> Equalized:
    """Move outliers of activations into the weights that read them.

    Factors go into the layers before where there are some; products behind float operators get a
    Mul in front, which stays in float.

    Raises:
        UsageError: no samples, or an activation that is not finite.

    """
    copy = model.clone()
    found, refusals = groups(copy, exclude)
    axes = {n.inputs[0].name or "": g.axis for g in found for n in g.readers if n.inputs[0]}
    loose = _behind_float(copy, exclude)
    axes |= dict.fromkeys(loose, -1)
    ranges = channel_ranges(copy, feeds, axes)
    for group in found:
        seen = [ranges.largest(_input(n)) for n in group.readers if _input(n) in ranges.low]
        if seen:
            read = np.max([_inputs(n) for n in group.readers], axis=0)
            group.scale(_powers_of_two(smooth([read[None]], np.max(seen, axis=0), strength)))
    for name, nodes in loose.items():
        if name in ranges.low:
            rows = [rows_of(n, weight_array(n))[0] for n in nodes]
            scale_input(nodes, _powers_of_two(smooth(rows, ranges.largest(name), strength)))
    return Equalized(copy, refusals)


def _behind_float(model: ir.Model, exclude: Collection[str]) -> dict[str, list[ir.Node]]:
    """Products by the input that they share, which no integer operator computes."""
    found: dict[str, list[ir.Node]] = {}
    for node in model.graph:
        if not is_op(node, "MatMul", "Gemm") or node.name in exclude or weight_reason(node):
            continue
        weight, value = node.inputs[1], node.inputs[0]
        shared = weight is None or len(list(weight.uses())) > 1
        before = None if value is None else value.producer()
        if before is None or shared or is_op(before, *LINEAR, *FOLLOWERS, *MOVERS, *CLAMPS):
            continue
        found.setdefault(_input(node), []).append(node)
    return found


def _input(node: ir.Node) -> str:
    return "" if node.inputs[0] is None else node.inputs[0].name or ""
