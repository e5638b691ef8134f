"""`infertool convert --to c`: emit, compile where that is possible, compare, keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_native import NativeModel, build_library, emit_model
from infer_native.build import find_compiler
from infer_native.isa import at_precision, find_isa
from infer_native.project import tuning_rows
from infer_native.targets import can_run, find_target
from infer_native.tune import tune
from infer_native.tuning import read_tuning
from infer_runtime.errors import MissingExtraError, UsageError
from infer_tool.emitters.c import check_folder, new_folder, write_project
from infer_tool.gates import apply_gates, parse_limits
from infer_tool.ledger import describe, stage
from infer_tool.steps import proof_feeds, require_equal, run_all, worst_over
from infer_tool.units import parse_shape
from passes.sizes import input_sizes

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_native.emit import Emitted
    from infer_native.isa import Isa
    from infer_native.tuning import Tuning
    from infer_tool.config import Convert
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal

SAMPLES = 3
BF16_TOLERANCE = 0.05  # factors have 8 bits: 0.4 % each, of sums and layers about the same again


def check_c_options(config: Convert) -> None:
    """Everything that can be refused before any work is done.

    Raises:
        UsageError: the folder, the instructions, the target or the compiler is wrong.
        MissingExtraError: --build or --tune without a compiler, --tune for another machine.

    """
    check_folder(config.output, config.force)
    target = find_target(config.target)
    isa = find_isa(config.isa)
    if target is not None and isa.family and config.isa != "auto":
        family = {"x86_64": "x86", "aarch64": "arm"}.get(target.name.partition("-")[0], "")
        if family != isa.family:
            raise UsageError(f"--isa {isa.name} does not exist on --target {target.name}")
    _check_tuning(config)
    if config.build:
        compiler = find_compiler(config.compiler)
        if target is not None and compiler.name != "zig":
            raise MissingExtraError(
                f"--target {target.name} --build needs zig; run: pip install 'infertool[native]'"
            )


def _check_tuning(config: Convert) -> None:
    isa = _isa(config)
    if config.tuning is not None:
        if config.tune:
            raise UsageError("--tune measures what --tuning gives; leave one of them out")
        read_tuning(config.tuning, isa)
    if not config.tune:
        return
    if not isa.lanes:
        raise UsageError(f"--tune: --isa {isa.name} has no vectors, there is nothing to choose")
    if not can_run(find_target(config.target), isa):
        machine = f"--target {config.target} " if config.target else ""
        raise MissingExtraError(
            f"--tune measures here, where code for {machine}--isa {isa.label} does not run; tune "
            "on that machine and give its tuning.json to --tuning"
        )
    find_compiler(config.compiler)


def _isa(config: Convert) -> Isa:
    """The instructions: of the machine that the code is for, where none are given."""
    target = find_target(config.target)
    name = target.isa if target is not None and config.isa == "auto" else config.isa
    return at_precision(find_isa(name), config.precision)


def write_verified_c(
    report: Report,
    ui: Terminal,
    model: ir.Model,
    config: Convert,
    feeds: list[dict[str, Any]],
    wanted: list[dict[str, Any]],
) -> None:
    """Write the folder `config.output` when the compiled code agrees with the reference runtime.

    Where the code cannot run here it is not verified, and the report says so.

    Raises:
        MismatchError: the outputs differ.

    """
    del feeds, wanted  # of other batches; emitted code has one shape
    from infer_runtime import Session

    session = Session(model)
    sizes = input_sizes(session.inputs, dict(parse_shape(text) for text in config.shape))
    target, isa = find_target(config.target), _isa(config)
    given = [f"{name}:{'x'.join(map(str, shape))}" for name, shape in sizes.items() if shape]
    samples = proof_feeds(session.inputs, config.seed, given, (1,) * SAMPLES)
    tuning = _tuning(report, ui, model, config, sizes, samples[0])
    with ui.step("emit C"), stage(report, "emit-c", isa=isa.label, target=config.target) as line:
        emitted = emit_model(model, sizes, isa.name, tuning, config.precision)
    line.options |= {"arena_bytes": emitted.arena_bytes, "weights_bytes": len(emitted.weights)}
    if tuning is not None:
        _record_choices(report, emitted, tuning)
    reason = _not_verifiable(config, can_run(target, isa))
    if reason:
        report.warnings.append(f"the emitted code was not run: {reason}")
        checked = f"no, {reason}"
    else:
        checked = _verify(report, ui, emitted, config, samples, run_all(session.run, samples))
    with new_folder(config.output, force=config.force) as folder:
        with ui.step("write"):
            write_project(
                emitted, folder, checked=checked, build=config.build, compiler=config.compiler,
                target=target, tuning=tuning,
            )  # fmt: skip
        size = sum(f.stat().st_size for f in folder.iterdir())
        report.artifact = describe(model, config.output, "c", size, None)
        apply_gates(report, parse_limits(config))


def _tuning(
    report: Report, ui: Terminal, model: ir.Model, config: Convert,
    sizes: dict[str, tuple[int, ...]], feeds: dict[str, Any],
) -> Tuning | None:  # fmt: skip
    """The choices: measured now, read from a file, or None where the cost model decides."""
    isa = _isa(config)
    if config.tuning is not None:
        return read_tuning(config.tuning, isa)
    if not config.tune:
        return None
    with ui.step("tune"), stage(report, "tune", isa=isa.label) as line:
        tuning = tune(model, sizes, isa, feeds, config.compiler)
    changed = sum(m.choice != next(iter(m.microseconds)) for m in tuning.layers.values())
    line.options |= {
        "compiler": tuning.compiler, "measured": len(tuning.layers), "changed": changed,
    }  # fmt: skip
    return tuning


def _record_choices(report: Report, emitted: Emitted, tuning: Tuning) -> None:
    """Into the report; UsageError for the record of another model."""
    rows = tuning_rows(emitted, tuning)
    if tuning.layers and not rows:
        raise UsageError("--tuning: no layer of this model is in the record; tune this model")
    columns = ["layers", "shapes", "choice", "microseconds of one"]
    report.details["Tuning"] = {"columns": columns, "rows": rows}


def _not_verifiable(config: Convert, runs: bool) -> str:
    """Why the code cannot be run here; empty when it can."""
    if not runs:
        return "this machine does not run its instructions"
    try:
        find_compiler(config.compiler)
    except MissingExtraError as error:
        return str(error)
    return ""


def _verify(
    report: Report, ui: Terminal, emitted: Emitted, config: Convert,
    samples: list[dict[str, Any]], wanted: list[dict[str, Any]],
) -> str:  # fmt: skip
    with ui.step("compile and verify"), stage(report, "verify:native") as line:
        library = build_library(emitted, compiler=config.compiler)
        record = worst_over(wanted, run_all(NativeModel(emitted, library).run, samples))
        line.max_abs_error, line.sqnr_db = record.max_abs, record.sqnr_db
    tolerance = config.tolerance
    if emitted.isa.bf16:
        tolerance = max(tolerance, BF16_TOLERANCE)
    line.options |= {"samples": len(samples), "tolerance": tolerance}
    require_equal(record, tolerance, "the emitted C differs from the reference runtime")
    return (
        f"{len(samples)} seeded inputs against the reference runtime, largest error "
        f"{record.max_abs:.3g}, {record.max_rel:.2g} of the largest value"
    )
