"""`infertool binarize`: layers of one bit, trained, measured, gated."""

from __future__ import annotations

from dataclasses import fields
from itertools import islice
from typing import TYPE_CHECKING

from infer_runtime.errors import MismatchError
from infer_tool.attribution import rank_layers
from infer_tool.compress import finish, start
from infer_tool.ledger import set_facts, stage
from infer_tool.training import raise_stopped, torch_threads
from passes.facts import facts
from quant.binarize.config import BinarizeConfig

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.compress import Start
    from infer_tool.config import Binarize
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal
    from quant.binarize.simulate import Simulation

FIT_BATCHES = 2
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
        training = begun.lesson.train(
            begun.report,
            ui,
            simulation.module,
            project=simulation.project,
            settled=_rise(config),
        )
        simulation.finish()
        model = _emitted(begun, ui, simulation)
        bits = config.activations == "binary"
        finish(begun, ui, config, model, simulation.module.values, quantised=bits)
        raise_stopped(begun.report, config, training)
    return begun.report


def _rise(config: Binarize) -> int:
    """Epochs in which layers become binary; at least one comes after them, if there are two."""
    return min(round(config.rise * config.epochs), max(config.epochs - 1, 0))


def _simulated(begun: Start, ui: Terminal, config: Binarize) -> Simulation:
    from quant.binarize.simulate import Simulation  # needs torch, which is there

    with ui.step("fit binary layers"), stage(begun.report, "binarize") as line:
        samples = begun.lesson.samples
        batches = [feeds for feeds, _ in islice(samples.epoch(0), FIT_BATCHES)]
        steps = _rise(config) * samples.steps
        normal = config.batch_norm and begun.lesson.normalizes
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
