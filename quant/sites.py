"""Where weights stand: which input of which operator, and along which axes they are quantised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from passes.base import all_nodes, is_op
from passes.graph import constant
from quant.formats import PaletteFormat
from quant.granularity import Granularity, PerAxis, PerBlock, PerTensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from quant.formats import Format

SMALLEST_WEIGHT = 64  # elements; below it scales and nodes outweigh what is saved


@dataclass(frozen=True)
class Site:
    """A weight in its place: `channel` is the axis of its outputs, `inner` the one summed over."""

    node: ir.Node
    index: int
    channel: int
    inner: int | None

    @property
    def weight(self) -> ir.Value:
        """The initialiser."""
        value = self.node.inputs[self.index]
        assert value is not None
        return value


def sites(model: ir.Model) -> Iterator[tuple[Site, str | None]]:
    """Every place of a weight in the model, subgraphs included, and why it must stay in float."""
    for node in all_nodes(model):
        for site in _of_node(node):
            if site.index < len(node.inputs) and node.inputs[site.index] is not None:
                yield site, _reason(site)


def _of_node(node: ir.Node) -> list[Site]:
    if is_op(node, "Conv"):
        return [Site(node, 1, 0, None)]
    if is_op(node, "ConvTranspose"):
        return [Site(node, 1, 1 if node.attributes.get_int("group", 1) == 1 else 0, None)]
    if is_op(node, "MatMul"):
        return [Site(node, 1, -1, -2)]
    if is_op(node, "Gemm"):
        transposed = node.attributes.get_int("transB", 0) == 1
        return [Site(node, 1, 0, 1) if transposed else Site(node, 1, 1, 0)]
    if is_op(node, "LSTM", "GRU", "RNN"):
        return [Site(node, 1, 1, 2), Site(node, 2, 1, 2)]  # [directions, gates * hidden, inputs]
    if is_op(node, "Gather") and node.attributes.get_int("axis", 0) == 0:
        return [Site(node, 0, 0, 1)] if constant(node.inputs[0]) is not None else []
    return []


def _reason(site: Site) -> str | None:
    value, array = site.weight, constant(site.weight)
    if array is None:
        kind = "a graph input" if value.is_graph_input() else "computed"
        return f"its weight {value.name} is {kind}"
    if array.dtype.name != "float32":
        return f"its weight {value.name} is {array.dtype}, not float32"
    if not np.isfinite(array).all():
        return f"its weight {value.name} holds NaN or infinity"
    if value.is_graph_output():
        return f"its weight {value.name} is a graph output"
    if array.ndim < 2:
        return f"its weight {value.name} has {array.ndim} axes"
    if array.size < SMALLEST_WEIGHT:
        return f"its weight {value.name} has {array.size} elements: too few to save anything"
    return None


def granularity(site: Site, form: Format, block: int) -> tuple[Granularity, str | None]:
    """How many scales the weight gets, and why it does not get the blocks that were asked for."""
    array = constant(site.weight)
    assert array is not None
    if isinstance(form, PaletteFormat):
        return PerTensor(), None
    axis = PerAxis(site.channel % array.ndim)
    if not block or site.inner is None:
        return axis, None
    inner = site.inner % array.ndim
    if array.shape[inner] % block:
        return axis, (
            f"{site.weight.name}: {array.shape[inner]} is not divisible by blocks of {block}; "
            "it has one scale for each channel"
        )
    return PerBlock(inner, block), None
