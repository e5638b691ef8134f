"""Pruning of single weights as the command runs it: rounds of masks and training, storage."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from infer_tool.ledger import set_facts, stage
from infer_tool.units import parse_part
from passes.facts import facts
from quant.domain import inline_functions
from quant.prune.config import PruneConfig
from quant.prune.movement import Movement, hold
from quant.prune.pattern import Pattern, parse_pattern
from quant.prune.unstructured import sparsify
from quant.prune.weights import weights_of, zeros_share
from quant.sparse import store_sparse
from quant.store import forget_formats

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from infer_tool.compress import Start
    from infer_tool.config import Prune
    from infer_tool.ui import Terminal
    from quant.prune.unstructured import Sparsified
    from quant.train.config import TrainConfig
    from quant.train.loop import Training
    from quant.train.module import Trainable

    Array = np.ndarray[Any, Any]

CALIBRATION_BATCHES = 8
NOT_FASTER = (
    "the zeros make the file smaller, not faster: engines multiply by them like by any other "
    "number; for speed prune channels with --target-macs"
)


def element_budget(config: Prune) -> float | Pattern:
    """The share that goes, or the pattern.

    Raises:
        UsageError: it is out of range, or another option contradicts it.

    """
    if config.method == "movement":
        _check_movement(config)
    if config.pattern:
        if config.uniform:
            raise UsageError("--uniform is for --sparsity: a --pattern is the same in every layer")
        return parse_pattern(config.pattern)
    return parse_part(config.sparsity, "sparsity")


def _check_movement(config: Prune) -> None:
    least = 2 * config.rounds
    if config.epochs < least:
        raise UsageError(
            f"--method movement learns by training: it needs at least {least} --epochs for "
            f"{config.rounds} --rounds, or choose another --method"
        )
    if config.checkpoint is not None:
        raise UsageError("--checkpoint does not keep the scores of --method movement; leave it out")


def prune_elements(
    begun: Start, ui: Terminal, config: Prune, budget: float | Pattern
) -> tuple[ir.Model, Trainable, Training]:
    """The model as it is to be stored, what was trained, and how training ended."""
    model, movement = begun.source, _movement(begun, config)
    first = 0 if movement else 1  # movement learns its first scores from the whole model
    masks: dict[str, Array] = {}
    for number in range(first, config.rounds + 1):
        if number:
            done = _sparsify(
                begun, ui, config, model, _at(budget, number / config.rounds), movement
            )
            model, masks = done.model, done.masks
        module = begun.lesson.learner(model, batch_norm=config.batch_norm)
        project = movement.watch(module, masks) if movement else hold(module, masks)
        options = round_options(config, number - first + 1, config.rounds + 1 - first)
        training = begun.lesson.train(begun.report, ui, module, options, project)
        if training.stopped is not None and number < config.rounds:
            raise training.stopped
        last = number == config.rounds
        model = movement.finish(module, masks) if movement and not last else module.written()
    begun.report.warnings.append(NOT_FASTER)
    return _stored(begun, ui, config, model, set(masks)), module, training


def _movement(begun: Start, config: Prune) -> Movement | None:
    if config.method != "movement":
        return None
    return Movement(w.name for w in weights_of(begun.source)[0])


def _at(budget: float | Pattern, done: float) -> float | Pattern:
    """Much at first, little in the end: the cubic schedule of Zhu and Gupta, 2017."""
    share = 1 - (1 - done) ** 3
    return budget.at(share) if isinstance(budget, Pattern) else share * budget


def round_options(config: Prune, number: int, rounds: int) -> TrainConfig:
    """The last round has half of the epochs, the others share the rest; a checkpoint for each."""
    if rounds == 1:
        return config
    early = config.epochs // 2 // (rounds - 1)
    epochs = early if number < rounds else config.epochs - early * (rounds - 1)
    path = config.checkpoint
    if path is not None:
        path = path.with_name(f"{path.name}.{number}")
    return replace(config, epochs=epochs, checkpoint=path)


def _sparsify(
    begun: Start,
    ui: Terminal,
    config: Prune,
    model: ir.Model,
    budget: float | Pattern,
    movement: Movement | None,
) -> Sparsified:
    shown = f"{100 * budget:.1f} %" if isinstance(budget, float) else str(budget)
    with ui.step(f"prune {shown} of the weights"), stage(begun.report, "prune") as line:
        samples = islice(begun.lesson.samples.epoch(0), CALIBRATION_BATCHES)
        done = sparsify(
            model,
            [feeds for feeds, _ in samples],
            budget=budget,
            method=config.method,
            uniform=config.uniform,
            scores=movement.scores if movement else None,
        )
        set_facts(line, facts(model), facts(done.model))
        line.options = {f.name: getattr(config, f.name) for f in fields(PruneConfig)}
        line.options["zeros"] = zeros_share(done.model, set(done.masks))
        line.options["zeros_by_weight"] = done.sparsity
        line.refusals = list(done.refusals)
    return done


def _stored(
    begun: Start, ui: Terminal, config: Prune, model: ir.Model, names: set[str]
) -> ir.Model:
    """Without its zeros, where that was asked for and is smaller."""
    with ui.step(f"store the zeros {config.store}"), stage(begun.report, "store") as line:
        copy = model.clone()
        short = store_sparse(copy) if config.store == "sparse" else []
        inline_functions(copy)
        forget_formats(copy)
        line.options = {
            "store": config.store,
            "weights": len(names),
            "stored_sparse": len(short),
            "zeros": zeros_share(model, names),
        }
        set_facts(line, facts(model), facts(copy))
    return copy
