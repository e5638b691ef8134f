"""One entry for all schemes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    import onnx_ir as ir

    from passes.base import Refusal
    from quant.config import QuantizeConfig
    from quant.coverage import Coverage


@dataclass(frozen=True)
class Quantized:
    """A quantised model, what it covers, what was refused, and what the user should know."""

    model: ir.Model
    coverage: Coverage
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()  # what was asked for and could not be done everywhere


def quantize_model(
    model: ir.Model,
    feeds: Iterable[Mapping[str, np.ndarray[Any, Any]]],
    config: QuantizeConfig,
) -> Quantized:
    """Quantise a copy of the model by `config.scheme`.

    Args:
        model: opset 13 or newer, constants as initialisers, BatchNormalization folded.
        feeds: calibration batches; read once, and only by schemes that need ranges.
        config: the options.

    Raises:
        UsageError: an option or the data is wrong.
        ModelError: the result is not a valid graph.

    """
    from quant.dynamic import quantize_dynamic
    from quant.half import quantize_half
    from quant.static import quantize_static
    from quant.weight_only import SUFFIX, quantize_weights

    if config.scheme == "auto":
        raise UsageError("auto is a search, which needs an engine: call infer_tool.quantize")
    static = "-" not in config.scheme and config.scheme != "fp16"
    if not static and (given := _static_only(config)):
        raise UsageError(f"{given} is for static schemes, not for {config.scheme}")
    if static and (given := _weight_only(config)):
        raise UsageError(f"{given} is for FORMAT-weight, not for {config.scheme}")
    if config.scheme == "fp16":
        result = quantize_half(model, config)
    elif config.scheme == "int8-dynamic":
        result = quantize_dynamic(model, feeds, config)
    elif config.scheme.endswith(SUFFIX):
        result = quantize_weights(model, feeds, config)
    else:
        result = quantize_static(model, feeds, config)
    return finished(result, config)


def finished(result: Quantized, config: QuantizeConfig) -> Quantized:
    """With or without functions, as the options say, and checked.

    Raises:
        ModelError: the result is not a valid graph.

    """
    from passes.verify import verify
    from quant.domain import inline_functions

    if not config.keep_functions:
        inline_functions(result.model)
    verify(result.model)
    return result


def _static_only(config: QuantizeConfig) -> str | None:
    """An option in effect that only static schemes know."""
    given = {
        "--equalize": config.equalize,
        "--empirical-bias": config.empirical_bias,
        "--reconstruct": config.reconstruct != "none",
        "--learn-ranges": config.learn_ranges,
        "--reduce-range": config.reduce_range,
        "--rounding": config.rounding != "auto",
        "--smooth": bool(config.smooth) and config.scheme != "int8-dynamic",
    }
    return next((flag for flag, on in given.items() if on), None)


def _weight_only(config: QuantizeConfig) -> str | None:
    """An option in effect that only weight-only schemes know."""
    given = {
        "--algorithm": config.algorithm != "auto",
        "--block-size": config.block_size is not None,
    }
    return next((flag for flag, on in given.items() if on), None)
