"""`infertool binarize`: layers of one bit, trained, measured, gated."""

from __future__ import annotations

from dataclasses import fields
from itertools import islice
from typing import TYPE_CHECKING

from infer_runtime.errors import MismatchError
from infer_tool.attribution import rank_layers
from infer_tool.compress import finish, start
from infer_tool.ledger import set_facts, stage
from infer_tool.training import part_options, raise_stopped, torch_threads
from passes.facts import facts
from quant.binarize.config import BinarizeConfig

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.compress import Start
    from infer_tool.config import Binarize
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal
    from quant.binarize.simulate import Simulation
    from quant.train.config import TrainConfig
    from quant.train.loop import Training

FIT_BATCHES = 2
LAST_SHARE = 0.2  # of the epochs, with ...
LAST_RATE = 0.25  # of the learning rate, learn without normalisation
MOST_NOISE = 1e-5  # of a layer's output against the simulation's: the rounding of float32


def run(config: Binarize, ui: Terminal) -> Report:
    """Import, optimise, make binary, train, write as packed bits, measure, judge.

    Raises:
        UsageError: a path, an option or the data is wrong; no layer can become binary.
        ModelError: the model cannot be read, or an operator has no gradient.
        MismatchError: the loss is not finite, or an engine computes another thing.
        GateError: a limit was missed.
        LimitError: a limit of time or memory is reached; the best so far is written.

    """
    with torch_threads(config.train_threads):
        begun = start("binarize", config, ui)
        simulation = _simulated(begun, ui, config)
        training = _trained(begun, ui, config, simulation)
        module = simulation.module
        model = _emitted(begun, ui, simulation)
        bits = config.activations == "binary"
        finish(begun, ui, config, model, module.values, quantised=bits)
        raise_stopped(begun.report, config, training)
    return begun.report


def _trained(begun: Start, ui: Terminal, config: Binarize, simulation: Simulation) -> Training:
    """Behind normalisation first, where that is possible; then as the layers will be written."""
    lesson, first = begun.lesson, config.epochs - _last(begun, config)
    training = lesson.train(
        begun.report,
        ui,
        simulation.module,
        _part(config, 1, first),
        project=simulation.project,
        settled=_rise(begun, config),
    )
    if first < config.epochs:
        simulation.fold()
        if training.stopped is None:
            options = _part(config, 2, config.epochs - first)
            training = lesson.train(begun.report, ui, simulation.module, options)
    simulation.finish()
    return training


def _part(config: Binarize, number: int, epochs: int) -> TrainConfig:
    """The options of a part of training; the second takes smaller steps."""
    if epochs == config.epochs:
        return config
    rate = config.learning_rate * (LAST_RATE if number > 1 else 1)
    return part_options(config, number, epochs, rate)


def _last(begun: Start, config: Binarize) -> int:
    """Epochs without normalisation after those with it; 0 where all are without."""
    count = round(LAST_SHARE * config.epochs)
    return count if config.batch_norm and begun.lesson.normalizes else 0


def _rise(begun: Start, config: Binarize) -> int:
    """Epochs in which layers become binary; at least one comes after them, if there are two."""
    first = config.epochs - _last(begun, config)
    return min(round(config.rise * config.epochs), max(first - 1, 0))


def _simulated(begun: Start, ui: Terminal, config: Binarize) -> Simulation:
    from quant.binarize.simulate import Simulation  # needs torch, which is there

    with ui.step("fit binary layers"), stage(begun.report, "binarize") as line:
        samples = begun.lesson.samples
        batches = [feeds for feeds, _ in islice(samples.epoch(0), FIT_BATCHES)]
        steps = _rise(begun, config) * samples.steps
        normal = _last(begun, config) > 0
        simulation = Simulation(begun.source, config, batches, steps, batch_norm=normal)
        line.options = {f.name: getattr(config, f.name) for f in fields(BinarizeConfig)}
        line.refusals = list(simulation.refusals)
    return simulation


def _emitted(begun: Start, ui: Terminal, simulation: Simulation) -> ir.Model:
    """Packed bits, compared with the simulation: each layer on what it read there."""
    from quant.binarize.emit import emit

    with ui.step("pack and compare with the simulation"), stage(begun.report, "pack") as line:
        emitted = emit(simulation)
        before, after = emitted.layer_bytes
        simulated = simulation.module.written()
        ranked = rank_layers(simulated, emitted.model, [begun.lesson.feeds])
        noise = max(layer.own.noise_ratio for layer in ranked)
        set_facts(line, facts(begun.source), facts(emitted.model))
        line.options = {
            "layers": len(simulation.layers),
            "layer_bytes": [before, after],
            "smaller": before / after,
            "noise": noise,
        }
    if not noise <= MOST_NOISE:
        raise MismatchError(
            f"layer {ranked[0].node}: the packed form differs from its simulation by {noise:.3g} "
            "of its values; no file was written"
        )
    return emitted.model
