"""Quantisation-aware training: the static scheme as a float graph that can be trained.

The graph has FakeQuantize wherever the quantised model has QuantizeLinear and DequantizeLinear, by
the same walk over the same selection. What is learned (weights, biases, all scales) goes back into
the numbers of that scheme, and the model is emitted as it is without training.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime import Session
from passes.remove_unused import RemoveUnused
from quant.granularity import PerAxis
from quant.parameters import BIAS_LEVELS, SMALLEST_SCALE, Parameters, weight_limits
from quant.qdq import Emitter
from quant.selection import select
from quant.static import Prepared, chosen_numbers, emit, quantised
from quant.train.fake import FAKE, NO_AXIS, TRAIN_DOMAIN
from quant.train.module import Trainable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quant.linear import Linear
    from quant.model import Quantized

    Array = np.ndarray[Any, Any]

LEAST_SCALE = 0.01  # of what a scale was at first


@dataclass
class _Simulator(Emitter):
    """Writes FakeQuantize in the place of Q and DQ; notes the names of what is learned."""

    scale_of: dict[str, str] = field(default_factory=dict)  # quantised value -> its scale
    linear_of: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # weight, scale, bias
    _learned: dict[int, ir.Value] = field(default_factory=dict)

    def _rounded(self, value: ir.Value, p: Parameters, name: str, array: Array | None) -> ir.Value:
        del array
        limits = (p.format.low, p.format.high)
        self.scale_of[name] = self._scale(p).name or ""
        return self._fake(value, self._scale(p), f"{name}_dq", limits, p.zero_point, role="weight")

    def _weight(self, node: ir.Node, weight: ir.Value, linear: Linear) -> tuple[ir.Value, ir.Value]:
        scale = self._constant(f"{weight.name}_s", linear.scale)
        axis = linear.granularity.axis if isinstance(linear.granularity, PerAxis) else NO_AXIS
        self.linear_of[node.name or ""] = (weight.name or "", scale.name or "", "")
        limits = weight_limits(linear.format)
        named = f"{weight.name}_dq"
        return self._fake(weight, scale, named, limits, axis=axis, role="weight"), scale

    def _bias(
        self,
        node: ir.Node,
        bias: ir.Value | None,
        array: Array,
        accumulator: Array,
        scales: tuple[ir.Value, ir.Value],
    ) -> ir.Value:
        """Rounded to the steps of the accumulator, which follow from what is learned."""
        del bias, scales
        shaped = np.broadcast_to(array, (max(array.size, accumulator.size),)).astype(np.float32)
        name, weight, source = node.name or "", node.inputs[1], node.inputs[0]
        assert weight is not None
        assert source is not None
        learned = self._constant(f"{name}_bias", shaped)
        self.linear_of[name] = (*self.linear_of[name][:2], learned.name or "")
        fake = weight.producer()
        assert fake is not None
        both = [self._scale(self.parameters[source.name or ""]), fake.inputs[1]]
        steps = ir.node("Mul", both, name=f"{learned.name}_s")
        steps.outputs[0].name = f"{learned.name}_s"
        self.model.graph.insert_before(self.model.graph[0], steps)
        axis = 0 if accumulator.ndim else NO_AXIS
        limits = (-BIAS_LEVELS, BIAS_LEVELS)
        named = f"{learned.name}_dq"
        return self._fake(learned, steps.outputs[0], named, limits, axis=axis, role="bias")

    def _scale(self, p: Parameters) -> ir.Value:
        """One for all values that share their parameters."""
        if id(p) not in self._learned:
            name = f"scale_{len(self._learned)}"
            self._learned[id(p)] = self._constant(name, np.asarray(p.scale, np.float32))
        return self._learned[id(p)]

    def _fake(
        self,
        value: ir.Value,
        scale: ir.Value,
        name: str,
        limits: tuple[int, int],
        zero_point: int = 0,
        *,
        axis: int = NO_AXIS,
        role: str,
    ) -> ir.Value:
        """Behind what computes the value or its scale, or before everything."""
        after = value.producer() or scale.producer()
        attributes: dict[str, Any] = {"low": limits[0], "high": limits[1], "axis": axis}
        attributes |= {"zero_point": zero_point, "role": role}
        output = self._insert(FAKE, [value, scale], name, after, attributes)
        node = output.producer()
        assert node is not None
        node.domain = TRAIN_DOMAIN
        output.shape, output.type = value.shape, ir.TensorType(ir.DataType.FLOAT)
        return output


class Simulation:
    """A trainable copy of a static scheme.

    Args:
        prepared: best without `--rounding gptq` and `--bias-correction`: training does what
            they do.

    """

    def __init__(self, prepared: Prepared) -> None:
        model = prepared.source.clone()
        chosen = select(model, prepared.config.exclude)
        writer = _Simulator(model, chosen, *chosen_numbers(prepared))
        writer.emit()
        RemoveUnused().apply(model)
        model.opset_imports[TRAIN_DOMAIN] = 1
        self._prepared, self._writer = prepared, writer
        self.module = Trainable(model)
        self._least = {
            name: LEAST_SCALE * self.module.parameters[name].detach()
            for name, p in self.module.known.items()
            if p.role == "scale" and name in self._scales()
        }

    def _scales(self) -> set[str]:
        linears = (scale for _, scale, _ in self._writer.linear_of.values())
        return {*self._writer.scale_of.values(), *linears}

    def project(self) -> None:
        """Scales stay above zero, whatever a step does."""
        for name, least in self._least.items():
            data = self.module.parameters[name].data
            data.copy_(data.clamp_min(least.clamp_min(SMALLEST_SCALE)))

    def learned(self) -> Quantized:
        """The quantised model with the learned scales, and the learned numbers of each product."""
        linears, parameters = self._linears(), self._parameters()
        done = emit(
            self._prepared,
            self._prepared.config.exclude,
            lambda node, _: linears[node.name or ""],
            refine=lambda *_: (linears, parameters),
        )
        return quantised(self._prepared, done)

    def _parameters(self) -> dict[str, Parameters]:
        parameters = dict(self._writer.parameters)
        for name, scale in self._writer.scale_of.items():
            parameters[name] = replace(parameters[name], scale=np.float32(self._value(scale)))
        return parameters

    def _linears(self) -> dict[str, Linear]:
        return {n: self._learned_linear(n) for n in self._writer.linear_of}

    def _learned_linear(self, node: str) -> Linear:
        weight, scale, bias = self._writer.linear_of[node]
        first = self._writer.linears[node]
        steps = self._value(scale)
        spread = first.granularity.spread(steps, self._value(weight)).astype(np.float32)
        low, high = weight_limits(first.format)
        levels = np.clip(np.rint(self._value(weight) / spread), low, high).astype(np.int8)
        return replace(first, levels=levels, scale=steps, bias=self._value(bias) if bias else None)

    def _value(self, name: str) -> Array:
        value = self.module.parameters.get(name)
        if value is None:  # a constant that is no parameter
            tensor = self.module.model.graph.initializers[name].const_value
            assert tensor is not None
            return tensor.numpy()
        found: Array = value.detach().cpu().numpy()
        return found

    def steps_apart(self, model: ir.Model, feeds: Mapping[str, Array]) -> float:
        """How far the quantised values here are from those of the emitted model, in steps.

        The root mean square of the worst value. A sum next to a half goes either way, and what
        it decides can be several steps further on, but such sums are rare; a wrong number is
        wrong everywhere. Where training left nothing to quantise it is 0.
        """
        both = _values(model) & _values(self.module.model)
        names = [n for n in self._writer.scale_of if f"{n}_dq" in both]
        outputs = [f"{n}_dq" for n in names]
        wanted = {n: v.detach().cpu().numpy() for n, v in self.module.run(feeds, outputs).items()}
        found = Session(model).run(feeds, outputs)
        worst = 0.0
        for name, output in zip(names, outputs, strict=True):
            missed = (wanted[output] - found[output]) / float(
                self._value(self._writer.scale_of[name])
            )
            worst = max(worst, float(np.sqrt(np.square(missed).mean())) if missed.size else 0.0)
        return worst


def _values(model: ir.Model) -> set[str]:
    return {o.name or "" for node in model.graph for o in node.outputs}
