"""Which places of which tensors are one channel: they stay together or go together.

Every axis of a value that carries channels has a vector of atoms, one number for each position.
Operators pass them on, join them where they meet (an addition, a product), or pin them where a
channel cannot go (an output, an operator that mixes positions in a way not known here).
Dependency graphs for structural pruning: Fang et al. 2023, "DepGraph", there on modules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.graph import constant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    Array = np.ndarray[Any, Any]
    Shape = tuple[int, ...]


@dataclass
class Product:
    """A share of a node's multiply-accumulates, proportional to each of these vectors' lengths."""

    node: str
    factors: list[Array]
    share: float = 1.0


@dataclass
class Repair:
    """A node that holds numbers of channels: what they are counted from, by place."""

    node: ir.Node
    kind: str  # group, hidden_size, split or reshape
    counts: dict[int, Array]  # {0: atoms}; split: by piece; reshape: by output axis


@dataclass
class Channels:
    """Atoms of a graph, joined into classes; `pinned` says why a class stays."""

    shapes: Mapping[str, Shape]
    parents: list[int] = field(default_factory=list)
    pinned: dict[int, str] = field(default_factory=dict)
    values: dict[tuple[str, int], Array] = field(default_factory=dict)
    constants: dict[tuple[str, int], Array] = field(default_factory=dict)
    makers: set[tuple[str, int]] = field(default_factory=set)  # axes of weights that make channels
    products: list[Product] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)

    def fresh(self, count: int) -> Array:
        """New atoms."""
        start = len(self.parents)
        self.parents += range(start, start + count)
        return np.arange(start, start + count)

    def find(self, atom: int) -> int:
        """The number of an atom's class."""
        while self.parents[atom] != atom:
            self.parents[atom] = self.parents[self.parents[atom]]
            atom = self.parents[atom]
        return atom

    def classes(self, atoms: Array) -> Array:
        """`find` of each."""
        return np.array([self.find(int(a)) for a in atoms], np.int64)

    def join(self, first: Array, second: Array) -> None:
        """Position by position the two become one class, pinned where either is."""
        for a, b in zip(first, second, strict=True):
            x, y = self.find(int(a)), self.find(int(b))
            if x == y:
                continue
            self.parents[y] = x
            if y in self.pinned:
                self.pinned.setdefault(x, self.pinned.pop(y))

    def pin(self, atoms: Array | None, reason: str) -> None:
        """These stay; the first reason is kept."""
        for atom in () if atoms is None else atoms:
            self.pinned.setdefault(self.find(int(atom)), reason)

    def shape(self, value: ir.Value | None) -> Shape:
        """The shape of a value, dynamic dimensions as 1; empty where unknown."""
        return () if value is None else self.shapes.get(value.name or "", ())

    def of(self, value: ir.Value | None, axis: int) -> Array | None:
        """The atoms along an axis; None where it carries no channels."""
        table = self.values if value is None or constant(value) is None else self.constants
        return None if value is None else table.get((value.name or "", axis))

    def give(self, value: ir.Value | None, axis: int, atoms: Array | None) -> None:
        """An axis carries these; joined with what it carries already. Other lengths pin both."""
        if value is None or atoms is None:
            return
        key = (value.name or "", axis)
        array = constant(value)
        shape = self.shape(value) if array is None else array.shape
        if not 0 <= axis < len(shape) or shape[axis] != len(atoms):
            self.pin(atoms, f"the size of {value.name} is not known")
            self.pin(self.of(value, axis), f"the size of {value.name} is not known")
            return
        table = self.values if array is None else self.constants
        if key in table:
            self.join(table[key], atoms)
        else:
            table[key] = atoms

    def made(self, weight: ir.Value, axis: int) -> Array:
        """The atoms that a weight makes along its output axis: the same for all its readers."""
        array = constant(weight)
        assert array is not None
        key = (weight.name or "", axis)
        self.makers.add(key)
        if key not in self.constants:
            self.constants[key] = self.fresh(array.shape[axis])
        return self.constants[key]

    def pin_all(self, values: Sequence[ir.Value | None], reason: str) -> None:
        """No channel of these values goes."""
        for value in values:
            for axis in range(len(self.shape(value))):
                self.pin(self.of(value, axis), reason)


def trace(model: ir.Model) -> Channels:
    """Walk the main graph.

    Args:
        model: with names and inferable shapes; constants are initialisers.

    """
    from passes.facts import infer_shapes
    from quant.prune.rules import apply_rule

    channels = Channels(infer_shapes(model, {}))
    for node in model.graph:
        apply_rule(node, channels)
    for value in model.graph.outputs:
        channels.pin_all([value], f"{value.name} is an output of the model")
    return channels
