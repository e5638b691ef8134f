"""Zero padding into the Conv after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from passes.base import RewriteRule, is_op
from passes.graph import constant, remove_node, shared_reason


@dataclass(frozen=True)
class PadIntoConv(RewriteRule):
    """A convolution pads by itself.

    Given:  p = Pad<constant>(x, pads, 0)  y = Conv<pads q>(p, W)
    Result: y = Conv<pads q + pads>(x, W)   when only spatial axes are padded, with zeros
    """

    name: ClassVar[str] = "pad-into-conv"

    def match(self, node: ir.Node) -> bool:
        """A Conv whose input is a Pad."""
        return (
            is_op(node, "Conv")
            and node.inputs[0] is not None
            and is_op(node.inputs[0].producer(), "Pad")
        )

    def check(self, node: ir.Node) -> str | None:
        """Constant zeros on spatial axes, read by this Conv alone."""
        assert node.inputs[0] is not None
        pad = node.inputs[0].producer()
        assert pad is not None
        if reason := shared_reason(node.inputs[0]):
            return reason
        if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
            return "the Conv pads automatically"
        if pad.attributes.get_string("mode", "constant") != "constant":
            return "the Pad does not pad with a constant"
        if len(pad.inputs) > 2 and pad.inputs[2] is not None:
            value = constant(pad.inputs[2])
            if value is None or np.any(value):
                return "the Pad does not pad with zeros"
        pads = _spatial_pads(pad, node)
        return "the Pad is not constant, crops, or pads batch or channels" if pads is None else None

    def rewrite(self, node: ir.Node) -> None:
        """Add the sizes up."""
        assert node.inputs[0] is not None
        pad = node.inputs[0].producer()
        assert pad is not None
        extra = _spatial_pads(pad, node)
        assert extra is not None
        own = node.attributes.get_ints("pads", None) or [0] * len(extra)
        total = [int(a + b) for a, b in zip(own, extra, strict=True)]
        node.attributes["pads"] = ir.AttrInt64s("pads", total)
        node.replace_input_with(0, pad.inputs[0])
        remove_node(pad)


def _spatial_pads(pad: ir.Node, conv: ir.Node) -> list[int] | None:
    """Begins, then ends of the spatial axes; None when the Pad does anything else."""
    pads = constant(pad.inputs[1]) if len(pad.inputs) > 1 else None
    weight = conv.inputs[1]
    shape = weight.shape if weight is not None else None
    if pads is None or shape is None or np.any(pads < 0):
        return None
    rank = len(shape)
    full = np.zeros((2, rank), np.int64)
    axes = list(range(rank))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        given = constant(pad.inputs[3])
        if given is None:
            return None
        axes = [int(a) % rank for a in given]
    if pads.size != 2 * len(axes):
        return None
    full[:, axes] = pads.reshape(2, -1)
    if full[:, :2].any():
        return None
    return [int(v) for v in full[:, 2:].reshape(-1)]
