"""`infertool cluster`: weights of few values, trained, packed, measured, gated."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

from infer_runtime import Session
from infer_tool.compress import finish, start
from infer_tool.ledger import set_facts, stage
from infer_tool.training import raise_stopped, torch_threads
from passes.facts import facts
from quant.cluster.config import ClusterConfig
from quant.cluster.palettes import cluster, emit, refit
from quant.train.module import Trainable

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.compress import Start
    from infer_tool.config import Cluster
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal


def run(config: Cluster, ui: Terminal) -> Report:
    """Import, optimise, cluster, train, pack, measure, judge, write.

    Raises:
        UsageError: a path, an option or the data is wrong; no weight would become smaller.
        ModelError: the model cannot be read, or an operator has no gradient.
        MismatchError: the loss is not finite, or an engine computes another thing.
        GateError: a limit was missed.
        LimitError: a limit of time or memory is reached; the best so far is written.

    """
    begun = start("cluster", config, ui)
    clustered = _cluster(begun, ui, config)
    if not config.epochs:
        finish(begun, ui, config, _emit(begun, ui, clustered), Session(clustered).run)
        return begun.report
    with torch_threads(config.train_threads):
        module = Trainable(clustered)
        project = partial(refit, module)
        training = begun.lesson.train(begun.report, ui, module, project=project)
        finish(begun, ui, config, _emit(begun, ui, module.written()), module.values)
        raise_stopped(begun.report, config, training)
    return begun.report


def _cluster(begun: Start, ui: Terminal, config: Cluster) -> ir.Model:
    with ui.step(f"{config.clusters} values"), stage(begun.report, "cluster") as line:
        found = cluster(begun.source, config)
        line.options = {f.name: getattr(config, f.name) for f in fields(ClusterConfig)}
        line.options["weights"] = len(found.weights)
        line.refusals = list(found.refusals)
    return found.model


def _emit(begun: Start, ui: Terminal, clustered: ir.Model) -> ir.Model:
    with ui.step("pack"), stage(begun.report, "pack") as line:
        model = emit(clustered)
        set_facts(line, facts(begun.source), facts(model))
    return model
