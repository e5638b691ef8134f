"""Chains of elementwise operators become one loop; what nobody reads goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_native.kernels.elementwise import MAPS, as_map, merged

if TYPE_CHECKING:
    from infer_native.program import Layer, Program, Tensor

MAX_STEPS = 24


def fuse_maps(program: Program) -> None:
    """Merge every elementwise layer into its only reader, where both have the same shape."""
    program.layers = [as_map(x) if x.op in MAPS else x for x in program.layers]
    kept = {t.root for t in program.outputs}
    changed = True
    while changed:
        changed = False
        users, producers = program.users(), program.producers()
        for layer in program.layers:
            first = _mergeable(layer, users, producers, kept)
            if first is not None:
                place = program.layers.index(layer)
                program.layers[place] = merged(first, layer)
                program.layers.remove(first)
                changed = True
                break


def _mergeable(
    layer: Layer,
    users: dict[Tensor, list[Layer]],
    producers: dict[Tensor, Layer],
    kept: set[Tensor],
) -> Layer | None:
    """A producer that only this layer reads, element by element at the same place."""
    if layer.op != "_Map":
        return None
    for tensor in layer.inputs:
        first = None if tensor is None else producers.get(tensor.root)
        if first is None or first.op != "_Map" or tensor is None or tensor.root in kept:
            continue
        alone = all(user is layer for user in users[tensor.root])
        same = first.output().shape == layer.output().shape
        plain = all(t is None or t.root is not tensor.root or t.shape == same_shape(first)
                    for t in layer.inputs)  # fmt: skip
        short = len(first.attrs["steps"]) + len(layer.attrs["steps"]) <= MAX_STEPS
        if alone and same and plain and short:
            return first
    return None


def same_shape(layer: Layer) -> tuple[int, ...]:
    """The shape that a reader must see the output under."""
    return layer.output().shape


def remove_unused(program: Program) -> None:
    """Drop layers whose outputs nobody reads."""
    wanted = {t.root for t in program.outputs}
    kept = []
    for layer in reversed(program.layers):
        if any(t is not None and t.root in wanted for t in layer.outputs):
            kept.append(layer)
            wanted |= {t.root for t in layer.inputs if t is not None}
    program.layers = kept[::-1]
