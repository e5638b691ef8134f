"""Does a converted model compute what torch does, on sizes that it never saw? Child side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from infer_runtime import Session
from infer_runtime.errors import ModelError
from infer_tool.importers.normalise import normalise
from infer_tool.importers.torch_inputs import InputSpec, sized
from infer_tool.importers.torch_program import Opened
from passes.compare import compare_outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

# Of the largest value; the gate is stricter, this only chooses the next route.
TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2
GROWTH = (0, 1)  # what dynamic dimensions have more than the example


def same(
    model: ir.Model,
    call: Callable[[list[Any]], Any],
    specs: list[InputSpec],
    given: list[Any],
    source: str,
) -> ir.Model:
    """The model normalised, if its outputs are those of `call` on two sizes and seeds.

    A route that has frozen a branch or a size shows it here, and the next one gets its chance.

    Raises:
        ModelError: it has other inputs, fixed sizes, or other outputs.

    """
    model = normalise(model, source)
    _check_inputs(model, specs)
    limit = HALF_TOLERANCE if any(t.dtype == torch.float16 for t in given) else TOLERANCE
    run, reference = Session(model).run, Opened(model, call).reference(source)
    for growth in GROWTH:
        generator = torch.Generator().manual_seed(growth + 1)
        feeds = {
            spec.name: sized(spec, [n + growth for n in tensor.shape], generator).numpy()
            for spec, tensor in zip(specs, given, strict=True)
        }
        found = compare_outputs(reference(feeds), run(feeds))
        worst = max(d.max_rel for d in found.values())
        if not worst <= limit:
            raise ModelError(f"computes something else (relative error {worst:.2g})")
    return model


def _check_inputs(model: ir.Model, specs: list[InputSpec]) -> None:
    inputs = model.graph.inputs
    if [v.name for v in inputs] != [s.name for s in specs]:
        raise ModelError(f"keeps {len(inputs)} of {len(specs)} inputs")
    for value, spec in zip(inputs, specs, strict=True):
        for size, wanted in zip(value.shape or (), spec.shape, strict=True):
            if isinstance(wanted, str) and isinstance(size, int):
                raise ModelError(f"fixes dimension {wanted!r} to {size}")
