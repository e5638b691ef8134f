"""A model with binary layers as a float graph that can be trained.

Given:  Conv, Gemm or MatMul (x, w, bias)
Result: weights alone: the same product of (x, Signed(w)), + bias
        activations too: of (Bits(x), Signed(w)), + bias; and, where the output has the shape of
        the input, + x * gain: what one bit lost goes round the layer (Liu et al. 2018, "Bi-Real
        Net", section 3.2)

All of it takes a share of the work that grows from 0, where the model is its source, to 1, where
it is what will be written: so that training starts from something that works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime import Session
from passes.base import is_op
from passes.graph import add_initializer, constant, forget_names, fresh_name, take_description
from passes.match import argument
from passes.remove_unused import RemoveUnused
from quant.binarize.choose import choose
from quant.train.binary import AROUND, BITS, SIGNED, STORED, signs
from quant.train.fake import TRAIN_DOMAIN
from quant.train.module import Trainable
from quant.train.moments import moments_of
from quant.train.normal import Normalized

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quant.binarize.config import BinarizeConfig

    Array = np.ndarray[Any, Any]
    Feeds = Sequence[Mapping[str, Array]]

SMALLEST_WIDTH = 1e-6  # of a bit: what it is made of may be constant
GAIN = 0.1  # of what goes round a layer, at first
SHARE = "infertool.share"


@dataclass(frozen=True)
class Layer:
    """A binary layer by the names of its values."""

    node: str
    kind: str  # Conv or Gemm
    attributes: dict[str, Any]
    input: str
    output: str
    weight: str
    scale: str
    bias: str
    shift: str = ""  # and the rest: where activations are binary too
    width: str = ""
    gain: str = ""


class Simulation:
    """A trainable copy of a model whose layers become binary.

    Args:
        source: a float model.
        config: which layers, and what of them.
        feeds: samples that tell where the activations lie.
        steps: of training, until the layers are binary.
        batch_norm: train convolutions behind normalisation, until `finish`.

    Raises:
        UsageError: nothing can become binary.

    """

    def __init__(
        self,
        source: ir.Model,
        config: BinarizeConfig,
        feeds: Feeds,
        steps: int,
        *,
        batch_norm: bool = False,
    ) -> None:
        self.source, self.config, self.steps = source, config, max(steps, 1)
        model = source.clone()
        model.opset_imports[TRAIN_DOMAIN] = 1
        forget_names(model)
        nodes, self.refusals = choose(model, config)
        share = add_initializer(model.graph, SHARE, np.zeros((), np.float32))
        writers = [_Writer(model, n, share, int(config.weights == "ternary")) for n in nodes]
        seen: dict[str, tuple[Array, Array]] = {}
        if config.activations == "binary":
            axes = {w.input.name or "": w.axis for w in writers}
            seen = moments_of(Session(source), feeds, axes)
        self.layers = [w.write(seen.get(w.input.name or "")) for w in writers]
        RemoveUnused().apply(model)
        self.module: Trainable
        if batch_norm:
            self.module = Normalized(model, feeds, held=[SHARE])
        else:
            self.module = Trainable(model, held=[SHARE])

    def project(self) -> None:
        """After each step: the layers become a little more binary."""
        share = self.module.parameters[SHARE]
        grown = float(share) + 1 / self.steps
        share.fill_(grown if grown < 1 - 0.5 / self.steps else 1)  # sums of steps are inexact

    def finish(self) -> None:
        """All layers are binary, however far training came, and without normalisation."""
        self.module.parameters[SHARE].fill_(1)
        if isinstance(self.module, Normalized):
            self.module = Trainable(self.module.written(), held=[SHARE])

    def levels(self, layer: Layer) -> Array:
        """-1, 0 and 1 of a weight [M, ...], by what trained it."""
        ternary = int(self.config.weights == "ternary")
        found = signs(self.module.parameters[layer.weight].detach(), ternary=ternary)
        levels: Array = found.cpu().numpy()
        return levels


class _Writer:
    """Puts a binary layer in the place of one node."""

    def __init__(self, model: ir.Model, node: ir.Node, share: ir.Value, ternary: int) -> None:
        self.graph, self.node, self.share, self.ternary = model.graph, node, share, ternary
        self.name = node.name or ""
        array = constant(node.inputs[1])
        assert array is not None
        self.is_conv = is_op(node, "Conv")
        turned = not self.is_conv and not node.attributes.get_int("transB", 0)
        self.rows: Array = np.ascontiguousarray(array.T) if turned else array
        self.axis = 1 if self.is_conv else -1
        bias = constant(argument(node, 2))
        self.bias = np.zeros(len(self.rows), np.float32)
        if bias is not None:
            self.bias += bias.reshape(-1)

    @property
    def input(self) -> ir.Value:
        """It changes when the layer before is written."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    def write(self, seen: tuple[Array, Array] | None) -> Layer:
        """The layer; its input is bits where mean and deviation of it have been seen."""
        x = self.input if seen is None else self._bits(*seen)
        weight = add_initializer(self.graph, f"{self.name}_w", self.rows)
        given = [weight, self._scale(), self.share]
        real = self._put(SIGNED, given, f"{self.name}_b", TRAIN_DOMAIN, ternary=self.ternary)
        result = self._product(x, real, self._stored("bias", self.bias, half=0))
        if seen is not None and self._keeps_shape():
            ones = (1,) * (self.rows.ndim - 2) if self.is_conv else ()
            gain = self._stored("gain", np.full((len(self.rows), *ones), GAIN, np.float32))
            given = [result, self.input, gain, self.share]
            result = self._put(AROUND, given, f"{self.name}_y", TRAIN_DOMAIN)
        return self._finished(weight, result)

    def _bits(self, mean: Array, deviation: Array) -> ir.Value:
        """Thresholds at the mean; weights and bias take over the unit and the origin of bits."""
        width = np.maximum(deviation, SMALLEST_WIDTH).astype(np.float32)
        shift = (mean / width).astype(np.float32)
        groups = len(width) // self.rows.shape[1]
        each = np.repeat(width.reshape(groups, -1), len(self.rows) // groups, axis=0)
        ones = (1,) * (self.rows.ndim - 2)
        self.rows = self.rows * each.reshape(*each.shape, *ones)
        taps = self.rows.reshape(*self.rows.shape[:2], -1).sum(2)
        origin = np.repeat(shift.reshape(groups, -1), len(self.rows) // groups, axis=0)
        self.bias = self.bias + (taps * origin).sum(1)
        spread = add_initializer(self.graph, f"{self.name}_width", width)
        given = [self.input, self._stored("shift", shift, half=0), spread, self.share]
        return self._put(BITS, given, f"{self.name}_x", TRAIN_DOMAIN, axis=self.axis)

    def _scale(self) -> ir.Value:
        """The mean magnitude of what is not 0 (Rastegari et al. 2016, section 3.1)."""
        others = tuple(range(1, self.rows.ndim))
        levels = signs(self.rows, ternary=self.ternary)
        size = np.abs(self.rows).sum(others, where=levels != 0, keepdims=True)
        scale = size / np.abs(levels).sum(others, keepdims=True).clip(1)
        return self._stored("scale", scale.astype(np.float32))

    def _keeps_shape(self) -> bool:
        x, y = self.input.shape, self.node.outputs[0].shape
        return x is not None and y is not None and x[1:] == y[1:] and len(x) > 1

    def _product(self, x: ir.Value, w: ir.Value, bias: ir.Value) -> ir.Value:
        if not self.is_conv:
            turned = self._put("Transpose", [w], f"{self.name}_t", perm=[1, 0])
            product = self._put("MatMul", [x, turned], f"{self.name}_p")
            return self._put("Add", [product, bias], f"{self.name}_a")
        found = self._put("Conv", [x, w, bias], f"{self.name}_a")
        node = found.producer()
        assert node is not None
        node.attributes.update(self.node.attributes)
        return found

    def _stored(self, part: str, array: Array, half: int = 1) -> ir.Value:
        value = add_initializer(self.graph, f"{self.name}_{part}", array)
        role = "bias" if part in ("bias", "shift") else "scale"
        return self._put(STORED, [value], f"{value.name}_f", TRAIN_DOMAIN, role=role, half=half)

    def _put(
        self, op: str, inputs: list[ir.Value], name: str, domain: str = "", **attributes: Any
    ) -> ir.Value:
        node = ir.node(op, inputs, attributes=attributes, domain=domain)
        node.name = fresh_name(self.graph, name)
        node.outputs[0].name = node.name
        self.graph.insert_before(self.node, node)
        return node.outputs[0]

    def _finished(self, weight: ir.Value, result: ir.Value) -> Layer:
        """The result takes the place and the name of what the node computed."""
        old = self.node.outputs[0]
        take_description(result, old)
        old.replace_all_uses_with(result, replace_graph_outputs=old.is_graph_output())
        read = self.input.name or ""
        attributes = {n: a.value for n, a in self.node.attributes.items()} if self.is_conv else {}
        self.graph.remove(self.node, safe=True)
        name, old.name = old.name, None
        result.name = name
        learned = {
            part: f"{self.name}_{part}" for part in ("scale", "bias", "shift", "width", "gain")
        }
        known = {p: n if n in self.graph.initializers else "" for p, n in learned.items()}
        return Layer(
            self.name, "Conv" if self.is_conv else "Gemm", attributes, read,
            name or "", weight.name or "", **known,
        )  # fmt: skip
