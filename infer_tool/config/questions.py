"""What the commands accept that ask about models, or run recipes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - the command line reads these annotations at run time

from infer_tool.config.parts import THREADS_HELP, Data, ImportOptions, Shapes, Talk


@dataclass(frozen=True, kw_only=True)
class Verify(Talk, ImportOptions, Shapes, Data):
    """Do two models give the same outputs?"""

    reference: str = field(metadata={"help": "The model that is right.", "positional": True})
    candidate: str = field(metadata={"help": "The model to check.", "positional": True})
    engine: str = field(
        default="auto",
        metadata={
            "help": "Engine for the candidate: auto means every one that checks ONNX files here.",
            "complete": "infer_tool.engines:ENGINES",
        },
    )
    reference_engine: str = field(
        default="source",
        metadata={"help": "Engine for the reference: its own framework, or one by name."},
    )
    tolerance: float = field(
        default=1e-4,
        metadata={
            "help": "Largest error allowed, relative to the output's largest value.",
            "min": 0,
        },
    )
    atol: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Largest absolute error of one output, name:1e-4, instead. Repeat for more.",
            "metavar": "NAME:ERROR",
        },
    )
    nonfinite: str = field(
        default="same",
        metadata={
            "help": "NaN and Inf: same (both models, same places), forbid (nowhere), or ignore "
            "(places where the reference has them do not count)."
        },
    )
    min_sqnr: float | None = field(
        default=None,
        metadata={"help": "Judge by signal to noise instead: at least this many dB."},
    )
    target_cpu: str | None = field(
        default=None,
        metadata={
            "help": "Also run the candidate as this processor would (avx2 saturates products).",
            "metavar": "CPU",
        },
    )
    layers: bool = field(
        default=False,
        metadata={
            "help": "Rank the layers by their error: with the reference's inputs, and accumulated."
        },
    )
    bisect: bool = field(
        default=False,
        metadata={
            "help": "Compute one layer at a time as the reference does: which gains most, and the "
            "command that leaves it out."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of inputs made without --data.", "min": 0})


@dataclass(frozen=True, kw_only=True)
class Bench(Talk, Shapes):
    """Latency of models side by side, measured in turns."""

    models: tuple[str, ...] = field(
        metadata={
            "help": "ONNX files; the first is what the others are compared with.",
            "positional": True,
        }
    )
    engine: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Engines, repeat for more. Default: those of the model's format.",
            "complete": "infer_tool.engines:ENGINES",
        },
    )
    threads: int = field(default=1, metadata={"help": THREADS_HELP, "min": 0})
    runs: int = field(default=50, metadata={"help": "Timed runs of each model.", "min": 1})
    warmup: int = field(default=5, metadata={"help": "Runs before the clock starts.", "min": 0})
    batch: int = field(default=1, metadata={"help": "Size of a dynamic first dimension.", "min": 1})
    matrix: str | None = field(
        default=None,
        metadata={
            "help": "All combinations: 'engine=onnxruntime,reference threads=1,2 batch=1,8'.",
            "metavar": "AXES",
        },
    )
    best_batch: str | None = field(
        default=None,
        metadata={
            "help": "Find the batch of the largest throughput whose p90 stays below, e.g. 20ms.",
            "metavar": "TIME",
        },
    )
    profile: bool = field(default=False, metadata={"help": "Show the time of every node."})
    memory: bool = field(
        default=False,
        metadata={"help": "Measure peak memory, in a process of its own for each row."},
    )
    max_latency: str | None = field(
        default=None,
        metadata={"help": "Largest median of every row, e.g. 5ms.", "metavar": "TIME"},
    )
    max_latency_regress: str | None = field(
        default=None,
        metadata={
            "help": "Most that a row may be slower than the baseline, or than the first model "
            "where there is no --baseline, e.g. 5%. Judged by the lower end of an interval.",
            "metavar": "SHARE",
        },
    )
    baseline: Path | None = field(
        default=None,
        metadata={"help": "Stored latencies, relative to a yardstick.", "metavar": "FILE"},
    )
    update_baseline: bool = field(
        default=False, metadata={"help": "Write this run's latencies to --baseline."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the inputs.", "min": 0})


@dataclass(frozen=True, kw_only=True)
class Inspect(Talk, ImportOptions, Shapes):
    """Operators, shapes, parameters, MACs, bytes and memory of a model."""

    model: str = field(
        metadata={"help": "An ONNX file or any other source of convert.", "positional": True}
    )
    layers: bool = field(default=False, metadata={"help": "One row for each node."})
    memory: bool = field(
        default=False,
        metadata={
            "help": "Plan the memory of the values: the largest live set, the smallest arena. "
            "Inputs with dynamic dimensions need --shape."
        },
    )


@dataclass(frozen=True, kw_only=True)
class Doctor(Talk):
    """What is installed and works here."""

    ops: bool = field(
        default=False,
        metadata={"help": "List every operator and who computes it in the reference runtime."},
    )
    formats: bool = field(
        default=False,
        metadata={"help": "List the formats of sources, how they are recognised and their needs."},
    )
    native: bool = field(
        default=False,
        metadata={"help": "List the operators that become C, and for which types."},
    )


@dataclass(frozen=True, kw_only=True)
class Run(Talk):
    """Run a whole pipeline from one file, or make a result again and compare its bytes."""

    recipe: Path | None = field(
        default=None,
        metadata={
            "help": "A YAML file: source, output, stages, limits. See docs/howto/recipe.md.",
            "positional": True,
        },
    )
    output: Path | None = field(
        default=None,
        metadata={
            "help": "The file to write, instead of the recipe's.",
            "flags": ("-o", "--output"),
            "metavar": "OUT.onnx",
        },
    )
    force: bool = field(default=False, metadata={"help": "Overwrite an existing output."})
    locked: Path | None = field(
        default=None,
        metadata={
            "help": "manifest.json of a --report folder: the same inputs must give the same bytes.",
            "metavar": "FILE",
        },
    )
