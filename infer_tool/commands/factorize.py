"""`infertool factorize`: layers of low rank, trained again, measured, gated."""

from __future__ import annotations

from dataclasses import asdict, fields
from itertools import islice
from typing import TYPE_CHECKING

from infer_runtime import Session
from infer_runtime.errors import UsageError
from infer_tool.compress import finish, start
from infer_tool.ledger import set_facts, stage
from infer_tool.training import raise_stopped, torch_threads
from infer_tool.units import parse_part
from passes.facts import facts
from quant.factorize.config import FactorizeConfig
from quant.factorize.lowrank import factorize
from quant.train.module import Trainable
from quant.train.task import heads_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.compress import Start
    from infer_tool.config import Factorize
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal

BATCHES = 8  # of training samples as they are, to which factors are fitted
JUDGED = 16  # of these samples, by which layers are compared


def run(config: Factorize, ui: Terminal) -> Report:
    """Import, optimise, factorise, train, measure, judge, write.

    Raises:
        UsageError: a path, an option or the data is wrong; the budget is out of reach.
        ModelError: the model cannot be read, or an operator has no gradient.
        MismatchError: the loss is not finite, or an engine computes another thing.
        GateError: a limit was missed.
        LimitError: a limit of time or memory is reached; the best so far is written.

    """
    counted, target = _budget(config)
    begun = start("factorize", config, ui)
    model = _factorize(begun, ui, config, counted, target)
    if not config.epochs:
        finish(begun, ui, config, model, Session(model).run)
        return begun.report
    with torch_threads(config.train_threads):
        module = Trainable(model)
        training = begun.lesson.train(begun.report, ui, module)
        finish(begun, ui, config, module.written(), module.values)
        raise_stopped(begun.report, config, training)
    return begun.report


def _budget(config: Factorize) -> tuple[str, float]:
    """What is counted, and the share of it that may stay; nothing where the energy decides."""
    given = {
        "target-params": config.target_params,
        "target-macs": config.target_macs,
        "energy": config.energy,
    }
    asked = [option for option, value in given.items() if value]
    if len(asked) != 1 or config.energy == 1:
        raise UsageError(
            "give one of --target-params, --target-macs and --energy, e.g. --target-params 60%"
        )
    if asked == ["energy"]:
        return "", 0.0
    (option,) = asked
    target = parse_part(str(given[option]), option)
    return "macs" if option == "target-macs" else "parameters", target


def _factorize(
    begun: Start, ui: Terminal, config: Factorize, counted: str, target: float
) -> ir.Model:
    with ui.step("factorise"), stage(begun.report, "factorize") as line:
        samples = begun.lesson.samples
        feeds = [f for f, _ in islice(samples.training.batches(samples.size), BATCHES)]
        judged = feeds[0] if samples.fixed else {n: x[:JUDGED] for n, x in feeds[0].items()}
        heads = [h.name for h in heads_of(begun.source, labelled=begun.lesson.labelled)]
        found = factorize(begun.source, feeds, judged, heads, config, counted, target)
        set_facts(line, facts(begun.source), facts(found.model))
        line.options = {f.name: getattr(config, f.name) for f in fields(FactorizeConfig)}
        line.options["layers"] = {n: asdict(o) for n, o in found.chosen.items() if o.way}
        line.refusals = list(found.refusals)
    return found.model
