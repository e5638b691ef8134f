"""`infertool distill`: a smaller student learns what its teacher answers."""

from __future__ import annotations

from itertools import islice
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
from passes.remove_unused import RemoveUnused
from quant.distill.blocks import drop_blocks
from quant.distill.hints import make_hints, named_pairs
from quant.distill.match import matched, tensors_of
from quant.prune.structured import narrow_layers
from quant.train.extra import import_torch
from quant.train.module import Trainable
from quant.train.task import heads_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.compress import Start
    from infer_tool.config import Distill
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal
    from quant.distill.hints import Hints
    from quant.distill.match import Tensor

IMPORTANCE_BATCHES = 4


def run(config: Distill, ui: Terminal) -> Report:
    """Import the teacher, import or make the student, train, measure, judge, write.

    Raises:
        UsageError: a path, an option or the data is wrong; the student does not fit.
        ModelError: a model cannot be read, or an operator has no gradient.
        MismatchError: the loss is not finite, or an engine computes another thing.
        GateError: a limit was missed.
        LimitError: a limit of time or memory is reached; the best so far is written.

    """
    _check_student(config)
    with torch_threads(config.train_threads):
        begun = start("distill", config, ui)
        student = _given(begun, ui, config) if config.student else _made(begun, ui, config)
        learner = student.clone()
        hints = _hints(begun, config, learner)
        module = begun.lesson.learner(learner, batch_norm=config.batch_norm)
        training = begun.lesson.train(begun.report, ui, module, hints=hints)
        result = module.written()
        RemoveUnused().apply(result)  # projections that only hints needed
        finish(begun, ui, config, result, module.values)
        raise_stopped(begun.report, config, training)
    return begun.report


def _check_student(config: Distill) -> None:
    """UsageError unless there is one way to a student."""
    made = 0 < config.shrink < 1 or config.drop_blocks
    if bool(config.student) == bool(made) or config.shrink == 1:
        raise UsageError(
            "give one of --student MODEL and --shrink SHARE, e.g. --shrink 0.5, or --drop-blocks "
            "SHARE, which goes with --shrink"
        )


def _hints(begun: Start, config: Distill, student: ir.Model) -> Hints | None:
    """Pairs of tensors that learn from each other; the student gets projections, in place."""
    pairs: list[tuple[Tensor, Tensor]] = []
    if config.hint or config.match == "auto":
        mine, others = (tensors_of(m, begun.lesson.feeds) for m in (student, begun.source))
        pairs = named_pairs(config.hint, mine, others)
    if config.match == "auto":
        models = (student, begun.source)
        heads = {h.name for m in models for h in heads_of(m, labelled=begun.lesson.labelled)}
        outputs = {o.name or "" for m in models for o in m.graph.outputs}
        pairs += matched(mine, others, heads | outputs)
    hints = make_hints(student, begun.source, pairs, config, begun.lesson.feeds)
    if hints is not None:
        with stage(begun.report, "hints") as line:
            line.options = {
                "pairs": {p.student.name: p.teacher.name for p in hints.pairs},
                "features": hints.features,
                "attention": hints.attention,
                "relation": hints.relation,
            }
    return hints


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


def _made(begun: Start, ui: Terminal, config: Distill) -> ir.Model:
    """The teacher without some of its blocks, then with narrower layers."""
    student = _fewer_blocks(begun, ui, config) if config.drop_blocks else begun.source
    return _shrunk(begun, ui, config, student) if config.shrink else student


def _fewer_blocks(begun: Start, ui: Terminal, config: Distill) -> ir.Model:
    torch = import_torch()
    lesson = begun.lesson
    batches = list(islice(lesson.samples.epoch(0), IMPORTANCE_BATCHES))

    def loss(model: ir.Model) -> float:
        module = Trainable(model)
        with torch.no_grad():
            return sum(float(lesson.loss(module, *batch)) for batch in batches) / len(batches)

    with ui.step("drop blocks"), stage(begun.report, "drop-blocks") as line:
        student, costs, gone = drop_blocks(begun.source, config.drop_blocks, loss)
        set_facts(line, facts(begun.source), facts(student))
        line.options = {"share": config.drop_blocks, "losses": costs, "dropped": gone}
    passes = OptimizeConfig(seed=config.seed)
    return optimise(begun.report, ui, student, passes, [begun.lesson.feeds])


def _shrunk(begun: Start, ui: Terminal, config: Distill, teacher: ir.Model) -> ir.Model:
    with ui.step(f"shrink to {config.shrink:g}"), stage(begun.report, "shrink") as line:
        student, refusals = narrow_layers(teacher, config.shrink, config.multiple)
        set_facts(line, facts(teacher), facts(student))
        line.options = {"share": config.shrink, "multiple": config.multiple}
        line.refusals = list(refusals)
    return student
