"""`infertool optimize`: the exact passes on an ONNX model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_runtime import Session
from infer_runtime.errors import UsageError
from infer_tool.evaluate import data_feeds
from infer_tool.files import check_output
from infer_tool.gates import parse_limits
from infer_tool.importers.detect import detect
from infer_tool.ledger import new_report
from infer_tool.report.write import check_report_folder
from infer_tool.steps import load_model, optimise, proof_feeds, prove_import, write_verified

if TYPE_CHECKING:
    from infer_tool.config import Optimize
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal

PROOF_BATCH, PROOF_SAMPLES = 4, 8  # each round of passes runs them all on the reference runtime


def run(config: Optimize, ui: Terminal) -> Report:
    """Import an ONNX file, run the passes, verify, judge, write.

    Raises:
        UsageError: a path or an option is wrong, or the model is not ONNX.
        ModelError: the file cannot be read.
        MismatchError: the result differs from the source.
        GateError: a limit was missed.

    """
    check_output(config.output, config.force)
    check_report_folder(config.report)
    parse_limits(config)
    if (kind := detect(config.model)) != "onnx":
        raise UsageError(f"{config.model}: is {kind}, not ONNX; use infertool convert")
    report = new_report("optimize", config)
    imported = load_model(report, ui, config.model, config)
    inputs = Session(imported.model).inputs
    if config.data is None:
        feeds = proof_feeds(inputs, config.seed, config.shape)
    else:
        feeds = data_feeds(config, inputs, PROOF_BATCH, PROOF_SAMPLES)
    wanted = prove_import(report, ui, imported, feeds, config.tolerance)
    model = optimise(report, ui, imported.model, config, feeds)
    write_verified(report, ui, model, config, feeds, wanted)
    return report
