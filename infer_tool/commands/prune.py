"""`infertool prune`: fewer channels or fewer weights, trained again, measured, gated."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError
from infer_tool.compress import finish, start
from infer_tool.latency_budget import find_share, judge, parse_limit
from infer_tool.ledger import set_facts, stage
from infer_tool.sparsify import element_budget, prune_elements, round_options
from infer_tool.training import raise_stopped, torch_threads
from infer_tool.units import parse_part
from passes.facts import facts
from quant.prune.config import PruneConfig
from quant.prune.structured import prune_channels, score_channels

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.compress import Start
    from infer_tool.config import Prune
    from infer_tool.latency_budget import Candidate
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal
    from quant.prune.importance import Batch
    from quant.train.loop import Training

IMPORTANCE_BATCHES, FITTING_BATCHES = 16, 8
ELEMENTS = ("sparsity", "pattern")
BUDGETS = ("target_macs", "target_params", "target_latency", *ELEMENTS)
OF_ELEMENTS, OF_CHANNELS = ("method", "uniform", "store"), ("importance", "multiple")


def run(config: Prune, ui: Terminal) -> Report:
    """Import, optimise, prune, train, measure, judge, write.

    Raises:
        UsageError: a path, an option or the data is wrong; the budget is out of reach.
        ModelError: the model cannot be read, an operator has no gradient, nothing can be pruned.
        MismatchError: the loss is not finite, or an engine computes another thing.
        GateError: a limit was missed.
        LimitError: a limit of time or memory is reached; the best so far is written.

    """
    option = _budget_option(config)
    _check_options(config, option)
    with torch_threads(config.train_threads):
        if option in ELEMENTS:
            return _run_elements(config, ui)
        return _run_channels(config, ui, option)


def _run_elements(config: Prune, ui: Terminal) -> Report:
    budget = element_budget(config)
    begun = start("prune", config, ui)
    model, module, training = prune_elements(begun, ui, config, budget)
    finish(begun, ui, config, model, module.values)
    raise_stopped(begun.report, config, training)
    return begun.report


def _run_channels(config: Prune, ui: Terminal, option: str) -> Report:
    limit = parse_limit(config) if option == "target_latency" else None
    counted, target = ("macs", 0.0) if limit else _budget(config, option)
    begun = start("prune", config, ui)
    model = begun.source
    if limit:
        target = find_share(begun, ui, config, limit, _candidates(begun, config))
    for number in range(1, config.rounds + 1):
        wanted = target ** (number / config.rounds)
        model = _prune(begun, ui, config, model, counted, wanted)
        module = begun.lesson.learner(model, batch_norm=config.batch_norm)
        options = round_options(config, number, config.rounds)
        training = begun.lesson.train(begun.report, ui, module, options)
        model = module.written()
        if training.stopped is not None:
            _check_reached(number, config, training)
            break
    finish(begun, ui, config, model, module.values, partial(judge, limit) if limit else _no_judge)
    raise_stopped(begun.report, config, training)
    return begun.report


def _no_judge(report: Report) -> None:
    """No gates beside those of the options."""


def _candidates(begun: Start, config: Prune) -> Candidate:
    """The source pruned to a share of its MACs, by scores that are found once."""
    scores = score_channels(
        begun.source, _samples(begun), begun.lesson.sensitivity(), config.importance
    )
    multiple = config.multiple
    return lambda share: prune_channels(
        begun.source, scores, target=share, counted="macs", multiple=multiple
    )[0]


def _samples(begun: Start) -> list[Batch]:
    return list(islice(begun.lesson.samples.epoch(0), IMPORTANCE_BATCHES))


def _budget_option(config: Prune) -> str:
    """The one budget that was given."""
    given = [name for name in BUDGETS if getattr(config, name)]
    if len(given) != 1:
        names = ", ".join(_flag(name) for name in BUDGETS)
        raise UsageError(f"give one of {names}, e.g. --target-macs 50%")
    return given[0]


def _check_options(config: Prune, option: str) -> None:
    """Options of the other kind of pruning are no options of this one."""
    foreign = OF_CHANNELS if option in ELEMENTS else OF_ELEMENTS
    for f in fields(PruneConfig):
        if f.name in foreign and getattr(config, f.name) != f.default:
            raise UsageError(f"{_flag(f.name)} does not go with {_flag(option)}; leave one out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _budget(config: Prune, option: str) -> tuple[str, float]:
    """What is counted, and the share of it that may stay."""
    target = parse_part(getattr(config, option), option.replace("_", "-"))
    return "macs" if option == "target_macs" else "parameters", target


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
        samples = _samples(begun)
        pruned, refusals = prune_channels(
            model,
            score_channels(model, samples, begun.lesson.sensitivity(), config.importance),
            target=min(wanted / left, 1.0),
            counted=counted,
            multiple=config.multiple,
            feeds=[feeds for feeds, _ in samples[:FITTING_BATCHES]],
        )
        set_facts(line, before, facts(pruned))
        line.options = {f.name: getattr(config, f.name) for f in fields(PruneConfig)}
        line.refusals = list(refusals)
    return pruned
