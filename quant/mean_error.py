"""Empirical bias correction: what the quantised layers miss in the mean, as they run.

Nagel et al., Data-Free Quantization (2019), section 4.2 and appendix D: layer by layer, each
behind the corrected layers before it. `quant.linear` takes out what follows from the rounding of
the weights alone; this adds what rounded activations and all layers before do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.base import is_op
from quant.linear import real_weight
from quant.simulate import Held, Rounded, fitting, segments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

    from quant.linear import Linear
    from quant.parameters import Parameters
    from quant.selection import Selection
    from quant.simulate import Segment

    Array = np.ndarray[Any, Any]


def correct_biases(
    model: ir.Model,
    chosen: Selection,
    parameters: Mapping[str, Parameters],
    linears: dict[str, Linear],
    feeds: Iterable[Mapping[str, Array]],
) -> None:
    """Change the biases in `linears`; a MatMul has none."""
    order = segments(model, chosen, 1)
    batches = fitting(feeds, order)
    rounded = rounded_by(chosen, parameters, linears)
    exact, noisy = Held(batches, order, None), Held(batches, order, rounded)
    for segment in order:
        for node in segment.layers:
            name = node.name or ""
            if not is_op(node, "MatMul"):
                missed = _mean(exact, segment, node) - _mean(noisy, segment, node)
                bias = linears[name].bias
                shifted = (missed if bias is None else bias + missed).astype(np.float32)
                linears[name] = replace(linears[name], bias=shifted)
                rounded.biases[name] = shifted
        exact.advance(segment)
        noisy.advance(segment)


def rounded_by(
    chosen: Selection, parameters: Mapping[str, Parameters], linears: Mapping[str, Linear]
) -> Rounded:
    """The numbers that these levels and parameters stand for."""
    return Rounded(
        chosen,
        lambda name, x: parameters[name].real(x),
        {name: real_weight(linear) for name, linear in linears.items()},
        {name: linear.bias for name, linear in linears.items()},
    )


def _mean(held: Held, segment: Segment, node: ir.Node) -> Array:
    """The mean of each channel of what a layer gives its clamp."""
    output = node.outputs[0].name or ""
    found = np.concatenate([batch[output] for batch in held.outputs(segment, [output])])
    axis = 1 if is_op(node, "Conv") else found.ndim - 1
    return np.asarray(
        found.mean(axis=tuple(i for i in range(found.ndim) if i != axis), dtype=np.float64)
    )
