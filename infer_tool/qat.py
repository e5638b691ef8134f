"""Quantisation with training: the static schemes, with their rounding in place while they learn."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import MismatchError, UsageError
from infer_tool.ledger import stage
from infer_tool.training import Lesson, torch_threads
from quant.model import finished
from quant.static import prepare
from quant.train.config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

    from infer_tool.config import Quantize
    from infer_tool.data import Dataset
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal
    from quant.model import Quantized
    from quant.train.loop import Training

STATIC = ("int8", "w4a8", "w3a8", "w2a8", "w4a4", "w2a4")
MOST_STEPS = 0.5  # between the simulation and the emitted model; where all is rounded alike, 0


def check_training(config: Quantize) -> None:
    """UsageError for options of training without it, and for schemes that cannot be trained."""
    if config.train:
        if config.scheme not in STATIC:
            raise UsageError(f"--train is for {', '.join(STATIC)}, not for {config.scheme}")
        return
    for option in fields(TrainConfig):
        if getattr(config, option.name) != option.default:
            raise UsageError(f"--{option.name.replace('_', '-')} is for training: add --train")


def train_quantised(
    report: Report,
    ui: Terminal,
    config: Quantize,
    source: ir.Model,
    feeds: Iterable[Any],
    data: Dataset,
) -> tuple[Quantized, Training]:
    """Calibrate, train the simulation, emit the same form as without training, compare the two.

    Raises:
        UsageError: the data is wrong, or nothing can be quantised.
        MismatchError: the loss is not finite; the emitted model computes another thing.

    """
    with torch_threads(config.train_threads):
        from quant.train.simulate import Simulation  # needs torch, which is there

        plain = replace(config, rounding="nearest", bias_correction=False)
        lesson = Lesson(config, source, data)
        simulation = Simulation(prepare(source, feeds, plain))
        training = lesson.train(report, ui, simulation.module, project=simulation.project)
        result = finished(simulation.learned(), config)
        with ui.step("compare with the simulation"), stage(report, "simulation") as line:
            steps = simulation.steps_apart(result.model, lesson.feeds)
            line.options = {"steps_apart": steps}
    if not steps <= MOST_STEPS:
        raise MismatchError(
            f"the emitted model is {steps:.3g} quantisation steps from its simulation, at most "
            f"{MOST_STEPS:g} is rounding; no file was written"
        )
    return result, training
