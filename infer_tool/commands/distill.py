"""`infertool distill`: a smaller student learns what its teacher answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_runtime import Session
from infer_runtime.errors import UsageError
from infer_tool.compress import finish, start
from infer_tool.importers import import_source
from infer_tool.ledger import set_facts, stage
from infer_tool.steps import optimise, prove_import, source_feeds
from infer_tool.training import raise_stopped, torch_threads
from passes.config import OptimizeConfig
from passes.facts import facts
from quant.prune.structured import narrow_layers
from quant.train.module import Trainable

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.compress import Start
    from infer_tool.config import Distill
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal


def run(config: Distill, ui: Terminal) -> Report:
    """Import the teacher, import or make the student, train, measure, judge, write.

    Raises:
        UsageError: a path, an option or the data is wrong; the student does not fit.
        ModelError: a model cannot be read, or an operator has no gradient.
        MismatchError: the loss is not finite, or an engine computes another thing.
        GateError: a limit was missed.
        LimitError: the time budget is spent; the best so far is written.

    """
    if bool(config.student) == bool(config.shrink) or config.shrink == 1:
        raise UsageError("give one of --student MODEL and --shrink SHARE, e.g. --shrink 0.5")
    with torch_threads(config.train_threads):
        begun = start("distill", config, ui)
        student = _given(begun, ui, config) if config.student else _shrunk(begun, ui, config)
        module = Trainable(student)
        training = begun.lesson.train(begun.report, ui, module)
        finish(begun, ui, config, module.written(), module.values)
        raise_stopped(begun.report, config, training)
    return begun.report


def _given(begun: Start, ui: Terminal, config: Distill) -> ir.Model:
    """The student's file, optimised like the teacher; its inputs must be the teacher's."""
    with ui.step(f"import {config.student}"), stage(begun.report, "student") as line:
        imported = import_source(config.student, config)
        set_facts(line, facts(begun.source), facts(imported.model))
    inputs, wanted = Session(imported.model).inputs, begun.lesson.session.inputs
    if [(i.name, i.dtype) for i in inputs] != [(i.name, i.dtype) for i in wanted]:
        raise UsageError(
            f"{config.student}: its inputs are {', '.join(f'{i.name} {i.dtype}' for i in inputs)}; "
            f"the teacher's are {', '.join(f'{i.name} {i.dtype}' for i in wanted)}"
        )
    feeds = source_feeds(imported, config.seed, config.shape)
    passes = OptimizeConfig(seed=config.seed)
    prove_import(begun.report, ui, imported, feeds, passes.tolerance)
    return optimise(begun.report, ui, imported.model, passes, feeds)


def _shrunk(begun: Start, ui: Terminal, config: Distill) -> ir.Model:
    with ui.step(f"shrink to {config.shrink:g}"), stage(begun.report, "shrink") as line:
        student, refusals = narrow_layers(begun.source, config.shrink, config.multiple)
        set_facts(line, facts(begun.source), facts(student))
        line.options = {"share": config.shrink, "multiple": config.multiple}
        line.refusals = list(refusals)
    return student
