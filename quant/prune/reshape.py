"""Channels through a Reshape: axes that are merged, and axes that are split into heads."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.evaluate import describe
from passes.graph import constant
from quant.prune.channels import Repair

if TYPE_CHECKING:
    import onnx_ir as ir

    from quant.prune.channels import Channels, Shape

    Array = np.ndarray[Any, Any]


def reshape(node: ir.Node, channels: Channels) -> None:
    """Blocks of axes of equal product are independent of each other."""
    x, y = node.inputs[0], node.outputs[0]
    before, after = channels.shape(x), channels.shape(y)
    if constant(node.inputs[1]) is None or prod(before) != prod(after) or not before:
        channels.pin_all([x], f"{describe(node)} has a shape that is not known")
        return
    counts: dict[int, Array] = {}
    for sources, targets in _blocks(before, after):
        carrying = [a for a in sources if channels.of(x, a) is not None]
        if carrying:
            _block(node, channels, sources, targets, carrying)
        counts |= {t: c for t in targets if (c := channels.of(y, t)) is not None}
    channels.repairs.append(Repair(node, "reshape", counts))


def flatten(node: ir.Node, channels: Channels) -> None:
    """Two blocks: the axes before `axis`, and the others."""
    rank = len(channels.shape(node.inputs[0]))
    axis = node.attributes.get_int("axis", 1)
    axis = axis if axis == rank else axis % max(rank, 1)
    for sources, target in ((range(axis), 0), (range(axis, rank), 1)):
        carrying = [a for a in sources if channels.of(node.inputs[0], a) is not None]
        if carrying:
            _block(node, channels, list(sources), [target], carrying)


def _blocks(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Smallest groups of neighbouring axes with the same product on both sides."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        sources, targets = [], []
        if i < len(before):
            sources.append(i)
            i += 1
        if j < len(after):
            targets.append(j)
            j += 1
        while (left := _product(before, sources)) != (right := _product(after, targets)):
            if left < right:
                sources.append(i)
                i += 1
            else:
                targets.append(j)
                j += 1
        blocks.append((sources, targets))
    return blocks


def _product(shape: Shape, axes: list[int]) -> int:
    return prod(shape[a] for a in axes)


def _block(
    node: ir.Node, channels: Channels, sources: list[int], targets: list[int], carrying: list[int]
) -> None:
    x, y = node.inputs[0], node.outputs[0]
    before, after = channels.shape(x), channels.shape(y)
    (axis, *others) = carrying
    atoms = channels.of(x, axis)
    assert atoms is not None
    wide = [t for t in targets if after[t] > 1]
    many = [s for s in sources if before[s] > 1]
    if not others and len(wide) == 1:  # merged: each channel becomes a run of positions
        outer = prod(before[s] for s in sources if s < axis)
        inner = prod(before[s] for s in sources if s > axis)
        channels.give(y, wide[0], np.tile(np.repeat(atoms, inner), outer))
    elif not others and len(many) == 1 and wide:  # split: all channels of a head are one
        rows = atoms.reshape(after[wide[0]], -1)
        for column in rows.T[1:]:
            channels.join(rows[:, 0], column)
        channels.give(y, wide[0], rows[:, 0])
    else:
        for source in carrying:
            channels.pin(channels.of(x, source), f"{describe(node)} mixes axes")
