"""`infertool prune`: fewer channels, trained again, measured, gated."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import islice
from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError
from infer_tool.compress import finish, start
from infer_tool.ledger import set_facts, stage
from infer_tool.training import raise_stopped, torch_threads
from infer_tool.units import parse_share
from passes.facts import facts
from quant.prune.config import PruneConfig
from quant.prune.structured import prune_channels
from quant.train.module import Trainable

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.compress import Start
    from infer_tool.config import Prune
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal
    from quant.train.config import TrainConfig
    from quant.train.loop import Training

IMPORTANCE_BATCHES = 16


def run(config: Prune, ui: Terminal) -> Report:
    """Import, optimise, prune, train, measure, judge, write.

    Raises:
        UsageError: a path, an option or the data is wrong; the budget is out of reach.
        ModelError: the model cannot be read, or an operator has no gradient.
        MismatchError: the loss is not finite, or an engine computes another thing.
        GateError: a limit was missed.
        LimitError: the time budget is spent; the best so far is written.

    """
    counted, target = _budget(config)
    with torch_threads(config.train_threads):
        return _run(config, ui, counted, target)


def _run(config: Prune, ui: Terminal, counted: str, target: float) -> Report:
    begun = start("prune", config, ui)
    model = begun.source
    for number in range(1, config.rounds + 1):
        wanted = target ** (number / config.rounds)
        model = _prune(begun, ui, config, model, counted, wanted)
        module = Trainable(model)
        training = begun.lesson.train(begun.report, ui, module, _options(config, number))
        model = module.written()
        if training.stopped is not None:
            _check_reached(number, config, training)
            break
    finish(begun, ui, config, model, module.values)
    raise_stopped(begun.report, config, training)
    return begun.report


def _budget(config: Prune) -> tuple[str, float]:
    """What is counted, and the share of it that may stay."""
    given = {"macs": config.target_macs, "parameters": config.target_params}
    asked = {what: text for what, text in given.items() if text}
    if len(asked) != 1:
        raise UsageError("give one of --target-macs and --target-params, e.g. --target-macs 50%")
    ((what, text),) = asked.items()
    option = "target-macs" if what == "macs" else "target-params"
    target = parse_share(text, option)
    if not 0 < target < 1:
        raise UsageError(f"--{option} {text}: expected more than 0% and less than 100%")
    return what, target


def _options(config: Prune, number: int) -> TrainConfig:
    """The last round has half of the epochs, the others share the rest; a checkpoint for each."""
    if config.rounds == 1:
        return config
    early = config.epochs // 2 // (config.rounds - 1)
    epochs = early if number < config.rounds else config.epochs - early * (config.rounds - 1)
    path = config.checkpoint
    if path is not None:
        path = path.with_name(f"{path.name}.{number}")
    return replace(config, epochs=epochs, checkpoint=path)


def _check_reached(number: int, config: Prune, training: Training) -> None:
    """A model that has not been pruned to the budget is no result."""
    if number < config.rounds:
        assert training.stopped is not None
        raise training.stopped


def _prune(
    begun: Start, ui: Terminal, config: Prune, model: ir.Model, counted: str, wanted: float
) -> ir.Model:
    """Prune to this share of the source, whatever is left of it already."""
    source, before = facts(begun.source), facts(model)
    left = getattr(before, counted) / max(getattr(source, counted), 1)
    with ui.step(f"prune to {100 * wanted:.1f} %"), stage(begun.report, "prune") as line:
        samples = islice(begun.lesson.samples.epoch(0), IMPORTANCE_BATCHES)
        pruned, refusals = prune_channels(
            model,
            list(samples),
            begun.lesson.loss,
            importance=config.importance,
            target=min(wanted / left, 1.0),
            counted=counted,
            multiple=config.multiple,
        )
        set_facts(line, before, facts(pruned))
        line.options = {f.name: getattr(config, f.name) for f in fields(PruneConfig)}
        line.refusals = list(refusals)
    return pruned
