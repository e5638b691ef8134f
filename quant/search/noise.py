"""What a decision does to the outputs, before anybody runs it.

Errors of layers are small and nearly independent, so that their powers add up at the outputs. How
much of a layer's own noise arrives there is measured once, with weights of `PROBED_BITS` and with
8-bit activations; the noise of other widths follows from what the layer meets in calibration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from quant.search.choice import FLOAT_BITS, Choice
from quant.search.space import PROBED_BITS

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from quant.search.choice import Assignment
    from quant.search.space import Space

    Measure = Callable[[str, Callable[[], ir.Model]], float]


@dataclass
class Noise:
    """Noise over signal at the outputs, by layer.

    probed: of weights of `PROBED_BITS`; activations: of computing in 8 bits, weights apart. A layer
    that was not measured passes on as much as the median of the others.
    """

    space: Space
    probed: dict[str, float] = field(default_factory=dict)
    activations: dict[str, float] = field(default_factory=dict)
    _local: dict[tuple[str, int], float] = field(default_factory=dict)

    def of(self, name: str, choice: Choice) -> float:
        """What one layer adds."""
        if choice.bits == FLOAT_BITS:
            return 0.0
        weights = self._gain(name) * self.local(name, choice.bits)
        return weights + (0.0 if choice.compute == "float" else self.activations.get(name, 0.0))

    def total(self, assignment: Assignment) -> float:
        """What all layers add."""
        return sum(self.of(name, choice) for name, choice in assignment.items())

    def local(self, name: str, bits: int) -> float:
        """The noise of the weights at the layer's own outputs."""
        if (name, bits) not in self._local:
            self._local[name, bits] = self.space.local_noise(name, bits)
        return self._local[name, bits]

    def _gain(self, name: str) -> float:
        if name not in self.probed:
            known = [self._gain(n) for n in self.probed]
            return median(known) if known else 1.0
        local = self.local(name, PROBED_BITS)
        return self.probed[name] / local if local else 0.0


def measure_noise(noise: Noise, measure: Measure) -> None:
    """Measure every layer; `measure` gets a name for the figure and what makes the model."""
    space = noise.space
    for name, layer in space.layers.items():
        noise.probed[name] = measure(f"{name} weights", partial(space.probe, name, PROBED_BITS))
        if "int8" in layer.bits:
            both = measure(name, partial(_alone, space, name))
            noise.activations[name] = max(both - noise.of(name, Choice("float", 8)), 0.0)


def _alone(space: Space, name: str) -> ir.Model:
    """One layer in integers, the others as they were."""
    rest: dict[str, Choice] = dict.fromkeys(space.layers, Choice("float", FLOAT_BITS))
    return space.emit(rest | {name: Choice("int8", 8)}).model
