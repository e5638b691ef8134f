"""`infertool convert`: any source to optimised ONNX, verified against the source framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError
from infer_tool.commands.convert_c import check_c_options, write_verified_c
from infer_tool.files import check_output
from infer_tool.gates import parse_limits
from infer_tool.ledger import new_report
from infer_tool.report.states import state_table
from infer_tool.report.write import check_report_folder
from infer_tool.steps import load_model, optimise, prove_import, source_feeds, write_verified

if TYPE_CHECKING:
    from infer_tool.config import Convert
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal

WRITERS = {"onnx": write_verified, "c": write_verified_c}


def run(config: Convert, ui: Terminal) -> Report:
    """Import, prove, optimise, prove again, write.

    Raises:
        UsageError: a path or an option is wrong.
        ModelError: the source cannot be imported.
        MismatchError: the result differs from the source framework.
        MissingExtraError: the source needs a package that is not installed.
        GateError: a limit was missed.

    """
    if config.to not in WRITERS:
        raise UsageError(f"--to {config.to!r}: expected one of {', '.join(WRITERS)}")
    if config.to == "onnx":
        if config.tune or config.tuning is not None or config.precision != "fp32":
            raise UsageError("--tune, --tuning and --precision are about emitted C; add --to c")
        check_output(config.output, config.force)
    else:
        check_c_options(config)
    check_report_folder(config.report)
    parse_limits(config)
    report = new_report("convert", config)
    imported = load_model(report, ui, config.source, config)
    report.details |= state_table(imported)
    feeds = source_feeds(imported, config.seed, config.shape)
    wanted = prove_import(report, ui, imported, feeds, config.tolerance)
    model = imported.model
    if config.optimize:
        model = optimise(report, ui, model, config, feeds)
    WRITERS[config.to](report, ui, model, config, feeds, wanted)
    return report
