"""Rounding of weights and ranges of activations learned by gradient, part by part of a network.

- One layer at a time: AdaRound (Nagel et al. 2020).
- Blocks up to the next point where one value goes on: BRECQ (Li et al. 2021).
- The scales of activations: learned step sizes (Esser et al. 2020), straight-through estimator.

Each part learns from its outputs in float, behind the quantised parts before it. What does not
lower the error of a part on its samples is not taken.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import MissingExtraError
from passes.base import is_op
from quant.mean_error import rounded_by
from quant.parameters import weight_limits
from quant.selection import MOVERS
from quant.simulate import Held, Rounded, fitting, segments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from quant.config import QuantizeConfig
    from quant.linear import Linear
    from quant.parameters import Parameters
    from quant.selection import Selection
    from quant.simulate import Segment

    Array = np.ndarray[Any, Any]
    Batches = list[dict[str, Any]]

STEP_SAMPLES = 16  # of a step, if a batch has fewer
BLOCK_LAYERS = 3
# The rectified sigmoid, the pull towards 0 and 1 and its course (AdaRound, section 3 and table 8).
STRETCH, SHIFT = 1.2, -0.1
PULL, FIRST_POWER, LAST_POWER, FREE = 0.01, 20.0, 2.0, 0.2
ROUNDING_RATE, RANGE_RATE = 5e-2, 2e-3
MOST = 2.0  # learned scales stay this near; then the bias at the accumulator's scale fits int32


def learns(config: QuantizeConfig) -> bool:
    """Is anything to be learned?"""
    return config.reconstruct != "none" or config.learn_ranges


def reconstruct(
    model: ir.Model,
    chosen: Selection,
    parameters: Mapping[str, Parameters],
    linears: Mapping[str, Linear],
    feeds: Iterable[Mapping[str, Array]],
    config: QuantizeConfig,
) -> tuple[dict[str, Linear], dict[str, Parameters]]:
    """Better levels and activation scales.

    Raises:
        MissingExtraError: torch is not installed.

    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("learning needs torch: pip install 'infertool[torch]'") from error
    found, spans = dict(linears), dict(parameters)
    order = segments(model, chosen, 1 if config.reconstruct == "layer" else BLOCK_LAYERS)
    batches = fitting(feeds, order)
    rounded = rounded_by(chosen, spans, found)
    exact, noisy = Held(batches, order, None), Held(batches, order, rounded)
    settled: set[str] = set()
    for segment in order:
        if segment.layers:
            given, wanted = noisy.inputs(segment), exact.outputs(segment, segment.outputs)
            part = _Part(torch, segment, chosen, found, spans, settled, config)
            with _one_thread(torch):
                part.learn(given, wanted)
            rounded.weights |= rounded_by(chosen, spans, found).weights
        exact.advance(segment)
        noisy.advance(segment)
    return found, spans


@contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    """Sums of several threads depend on their number; files must not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class _Soft:
    """A weight between two levels each: base + h(logits)."""

    base: Any
    steps: Any
    logits: Any
    low: float
    high: float

    @classmethod
    def of(cls, torch: Any, weight: Array, linear: Linear) -> _Soft:
        """Around the levels that were found, open towards the real weight."""
        steps = np.broadcast_to(linear.granularity.spread(linear.scale, weight), weight.shape)
        real, levels = weight / steps, linear.levels.astype(np.float64)
        base = np.where(real < levels, levels - 1, levels)
        share = np.clip((real - base + (levels - base)) / 2, 0.05, 0.95)
        sigmoid = (share - SHIFT) / STRETCH
        low, high = weight_limits(linear.format)
        logits = torch.tensor(np.log(sigmoid / (1 - sigmoid)), dtype=torch.float32)
        return cls(
            torch.tensor(base, dtype=torch.float32), torch.tensor(steps.astype(np.float32)),
            logits.requires_grad_(), low, high,
        )  # fmt: skip

    def share(self) -> Any:
        return (self.logits.sigmoid() * STRETCH + SHIFT).clip(0, 1)

    def weight(self) -> Any:
        return (self.base + self.share()).clip(self.low, self.high) * self.steps

    def levels(self) -> Array:
        hard = (self.base + (self.share() >= 0.5)).clip(self.low, self.high)
        return np.asarray(hard.detach().numpy().astype(np.int8))


class _Part:
    """One layer or block, and what it may learn."""

    def __init__(
        self,
        torch: Any,
        segment: Segment,
        chosen: Selection,
        linears: dict[str, Linear],
        parameters: dict[str, Parameters],
        settled: set[str],
        config: QuantizeConfig,
    ) -> None:
        self._torch, self._segment, self._chosen = torch, segment, chosen
        self._linears, self._parameters, self._config = linears, parameters, config
        self._soft = {
            node.name or "": _Soft.of(torch, _weight(node), linears[node.name or ""])
            for node in segment.layers
            if config.reconstruct != "none"
        }
        self._roots = _roots(chosen)
        self._factors: dict[str, Any] = {}
        if config.learn_ranges:
            new = {self._roots[n] for n in _values(segment, chosen)} - settled
            settled |= new
            self._factors = {n: torch.zeros((), requires_grad=True) for n in sorted(new)}
        biases = {n: _tensor(torch, linear.bias) for n, linear in linears.items()}
        names = [node.name or "" for node in segment.layers]
        hard = rounded_by(chosen, parameters, {n: linears[n] for n in names}).weights
        self._rounded = Rounded(
            chosen, self._activation, {n: torch.tensor(w) for n, w in hard.items()}, biases
        )
        self._plan = segment.plan(self._rounded, "torch")

    def learn(self, given: Batches, wanted: Batches) -> None:
        """Take steps on batches in turn, then round; keep what is better."""
        torch = self._torch
        inputs, targets = _tensors(torch, given), _tensors(torch, wanted)
        before = self._total(inputs, targets)
        groups = [
            {"params": [s.logits for s in self._soft.values()], "lr": ROUNDING_RATE},
            {"params": list(self._factors.values()), "lr": RANGE_RATE},
        ]
        optimizer = torch.optim.Adam([g for g in groups if g["params"]])
        size = max(1, STEP_SAMPLES // max(_count(inputs[0]), 1))
        order = np.random.default_rng(self._config.seed).integers(
            len(inputs), size=(self._config.steps, size)
        )
        for step, some in enumerate(order):
            self._rounded.weights |= {n: s.weight() for n, s in self._soft.items()}
            loss = sum(self._loss(inputs[i], targets[i]) for i in some) / size
            loss = loss + self._pull(step / self._config.steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self._finish(inputs, targets, before)

    def _finish(self, inputs: Batches, targets: Batches, before: float) -> None:
        """Write what was learned into the linears and parameters, if it is better."""
        torch = self._torch
        found = {n: replace(self._linears[n], levels=s.levels()) for n, s in self._soft.items()}
        hard = rounded_by(self._chosen, self._parameters, found).weights
        self._rounded.weights |= {n: torch.tensor(w) for n, w in hard.items()}
        if self._total(inputs, targets) >= before:
            return
        self._linears.update(found)
        for name, root in self._roots.items():
            if root in self._factors:
                scale = np.float32(self._scale(root).detach().numpy())
                self._parameters[name] = replace(self._parameters[name], scale=scale)

    def _total(self, inputs: Batches, targets: Batches) -> float:
        with self._torch.no_grad():
            pairs = zip(inputs, targets, strict=True)
            return sum(float(self._loss(x, y)) for x, y in pairs)

    def _loss(self, given: Mapping[str, Any], wanted: Mapping[str, Any]) -> Any:
        """Squared error over power of each output."""
        found = self._plan.run(given, list(wanted))
        return sum(
            (found[n] - y).square().mean() / y.square().mean().clip(1e-12)
            for n, y in wanted.items()
            if y.is_floating_point()
        )

    def _pull(self, share: float) -> Any:
        """Towards whole levels, harder in the end; nothing at first."""
        if share < FREE or not self._soft:
            return 0.0
        left = 0.5 * (1 + np.cos(np.pi * (share - FREE) / (1 - FREE)))
        power = LAST_POWER + (FIRST_POWER - LAST_POWER) * left
        return PULL * sum(
            (1 - (2 * s.share() - 1).abs() ** power).mean() for s in self._soft.values()
        )

    def _scale(self, root: str) -> Any:
        scale = self._torch.tensor(float(self._parameters[root].scale))
        factor = self._factors.get(root)
        if factor is None:
            return scale
        return scale * factor.exp().clip(1 / MOST, MOST)

    def _activation(self, name: str, x: Any) -> Any:
        """Rounded, with the gradient of what is not cut off."""
        p, scale = self._parameters[name], self._scale(self._roots.get(name, name))
        scaled = x / scale
        rounded = scaled + (scaled.round() - scaled).detach()
        return rounded.clip(p.format.low - p.zero_point, p.format.high - p.zero_point) * scale


def _roots(chosen: Selection) -> dict[str, str]:
    """The value whose parameters each value has: what only moves numbers passes them on."""
    roots = {name: name for name in chosen.values}
    for name, node in chosen.nodes.items():
        if is_op(node, *MOVERS):
            source = node.inputs[chosen.inputs[name][0]]
            assert source is not None
            roots |= {o.name or "": roots[source.name or ""] for o in node.outputs}
    return roots


def _values(segment: Segment, chosen: Selection) -> set[str]:
    """Names of the rounded values in a segment."""
    read = {v.name or "" for node in segment.graph for v in (*node.inputs, *node.outputs) if v}
    return read & chosen.values.keys()


def _weight(node: ir.Node) -> Array:
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float64)


def _count(batch: Mapping[str, Any]) -> int:
    """Samples of a batch, which has them along its first axis."""
    return max((x.shape[0] for x in batch.values() if x.ndim), default=1)


def _tensor(torch: Any, array: Array | None) -> Any:
    return None if array is None else torch.tensor(np.asarray(array, np.float32))


def _tensors(torch: Any, batches: Sequence[Mapping[str, Any]]) -> Batches:
    return [{n: torch.tensor(np.asarray(x)) for n, x in batch.items()} for batch in batches]
