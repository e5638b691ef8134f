"""What every command accepts: one frozen dataclass per command.

A field is the option of the command line, the key of a recipe and the keyword of the Python
function at once. This module imports nothing heavy: `infertool --help` reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path  # noqa: TC003 - the command line reads these annotations at run time
from typing import TYPE_CHECKING, Any

from passes.config import OptimizeConfig
from quant.binarize.config import BinarizeConfig
from quant.cluster.config import ClusterConfig
from quant.config import QuantizeConfig
from quant.distill.config import DistillConfig
from quant.factorize.config import FactorizeConfig
from quant.prune.config import PruneConfig
from quant.train.config import NormalConfig, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_CALIB_SAMPLES = 128
THREADS_HELP = "Threads of the engine; 0 is its default."
ENGINE_HELP = "Engine: onnxruntime, reference, openvino, native. Default: the fastest one here."


def _metadata_of(config: type[Any], name: str) -> Mapping[str, Any]:
    """Of an option whose default is another one in a command."""
    return next(f.metadata for f in fields(config) if f.name == name)


@dataclass(frozen=True, kw_only=True)
class Talk:
    """How a command answers."""

    report: Path | None = field(
        default=None,
        metadata={
            "help": "Folder for report.json, report.md, report.html and junit.xml.",
            "metavar": "DIR",
        },
    )
    json: bool = field(
        default=False, metadata={"help": "Print one JSON document on stdout instead of tables."}
    )
    quiet: bool = field(
        default=False, metadata={"help": "No progress and no log on stderr; errors still show."}
    )
    show_config: bool = field(
        default=False, metadata={"help": "Print every option in effect on stderr before the work."}
    )
    time_budget: str | None = field(
        default=None,
        metadata={
            "help": "Stop after this long, e.g. 90s or 10min: exit status 5 and no file. Training "
            "and quantize --scheme auto write the best so far, if it keeps the limits.",
            "metavar": "TIME",
        },
    )


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a source does not say by itself, and which part of it is meant."""

    input: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Input of a source that does not state its own, name:1x3x224x224:float32. "
            "A dimension given as a name is dynamic. Repeat for more.",
            "metavar": "NAME:SHAPE:DTYPE",
        },
    )
    output_name: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Keep only this output of the source. Repeat for more; this is their order.",
            "metavar": "NAME",
        },
    )
    signature: str = field(
        default="",
        metadata={
            "help": "Signature of a SavedModel or TFLite file that has several.",
            "metavar": "NAME",
        },
    )
    submodule: str = field(
        default="",
        metadata={
            "help": "Part of a PyTorch or TorchScript module to import, e.g. encoder.layers.0.",
            "metavar": "PATH",
        },
    )
    state_dict: Path | None = field(
        default=None,
        metadata={
            "help": "Weights for the module that module:factory returns: .pt or .safetensors.",
            "metavar": "FILE",
        },
    )
    task: str = field(
        default="",
        metadata={
            "help": "What a Hugging Face folder is for: features, classification, causal-lm. "
            "Default: what its configuration names.",
            "metavar": "TASK",
        },
    )
    follow_links: bool = field(
        default=False,
        metadata={
            "help": "Follow symbolic links that lead out of the model's folder, as in the cache "
            "of Hugging Face."
        },
    )


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where a model goes."""

    output: Path = field(
        metadata={
            "help": "The file to write. Written only after every check passed.",
            "flags": ("-o", "--output"),
            "metavar": "OUT.onnx",
        }
    )
    force: bool = field(default=False, metadata={"help": "Overwrite an existing output."})


@dataclass(frozen=True, kw_only=True)
class Data:
    """Samples, and how they become feeds."""

    data: str | None = field(
        default=None,
        metadata={
            "help": "Samples: .npz, image folder, folder of .npy/.npz, or file.py:function. "
            "For quantize it is split into calibration and evaluation parts.",
            "metavar": "DATA",
        },
    )
    preprocess: str | None = field(
        default=None,
        metadata={
            "help": "For images: 'resize=256 crop=224 mean=127 std=128 layout=nchw'.",
            "metavar": "STEPS",
        },
    )
    samples: int = field(
        default=0,
        metadata={"help": "Most evaluation samples to use; 0 means all.", "min": 0},
    )


@dataclass(frozen=True, kw_only=True)
class SizeGate:
    """A limit on the file; a missed limit is exit status 1 and no file."""

    max_size: str | None = field(
        default=None,
        metadata={"help": "Largest file, e.g. 5.3MB, 900kB, 2MiB.", "metavar": "SIZE"},
    )


@dataclass(frozen=True, kw_only=True)
class DropGate(SizeGate):
    """Limits that a lossy result must keep."""

    max_drop: str | None = field(
        default=None,
        metadata={"help": "Largest loss of the metric, e.g. 0.5% or 0.005.", "metavar": "DROP"},
    )
    min_sqnr: float | None = field(
        default=None,
        metadata={"help": "Smallest signal to noise of the outputs, in dB."},
    )
    max_latency: str | None = field(
        default=None,
        metadata={"help": "Largest median of a run on --engine, e.g. 5ms.", "metavar": "TIME"},
    )


@dataclass(frozen=True, kw_only=True)
class Gates(DropGate):
    """Limits that a quantised result must keep."""

    min_coverage: str | None = field(
        default=None,
        metadata={
            "help": "Smallest share of the multiply-accumulates that is quantised, e.g. 95%.",
            "metavar": "SHARE",
        },
    )


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Sizes for dynamic dimensions, for inputs that are made and not read."""

    shape: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Size of an input with dynamic dimensions, name:1x3x224x224. Repeat for more.",
            "metavar": "NAME:SHAPE",
        },
    )


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How latency is measured."""

    engine: str = field(
        default="auto", metadata={"help": ENGINE_HELP, "complete": "infer_tool.engines:ENGINES"}
    )
    threads: int = field(default=1, metadata={"help": THREADS_HELP, "min": 0})
    runs: int = field(
        default=50, metadata={"help": "Timed runs of each model; 0 measures no latency.", "min": 0}
    )


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What a lossy result is measured on, and by what."""

    eval: str | None = field(
        default=None,
        metadata={"help": "Evaluation samples, instead of a part of --data.", "metavar": "DATA"},
    )
    metric: str = field(
        default="auto",
        metadata={
            "help": "auto, top1, top5, agreement, cosine, sqnr, max-abs, or file.py:function."
        },
    )


@dataclass(frozen=True, kw_only=True)
class Explain:
    """What the passes did."""

    explain: bool = field(
        default=False,
        metadata={"help": "Show what each pass changed, what it refused to change, and why."},
    )


@dataclass(frozen=True, kw_only=True)
class Convert(Talk, Output, ImportOptions, Shapes, SizeGate, Explain, OptimizeConfig):
    """Any source to optimised, verified ONNX."""

    source: str = field(
        metadata={
            "help": "A model of any format that `infertool doctor --formats` lists.",
            "positional": True,
        }
    )
    optimize: bool = field(
        default=True,
        metadata={"help": "Run the exact passes.", "flags": ("--optimize/--no-optimize",)},
    )
    to: str = field(
        default="onnx", metadata={"help": "What to write: onnx, or c for a folder of C sources."}
    )
    isa: str = field(
        default="auto",
        metadata={
            "help": "Instructions of emitted C: avx512, avx2, sse, neon, dotprod, scalar. Default: "
            "the best of this machine, or the smallest of --target."
        },
    )
    target: str = field(
        default="",
        metadata={
            "help": "Machine that emitted C is built for, e.g. aarch64-linux, wasm32-wasi. "
            "Default: this one.",
            "metavar": "TRIPLE",
        },
    )
    build: bool = field(
        default=False,
        metadata={"help": "Also compile emitted C to a shared and a static library."},
    )
    compiler: str = field(
        default="auto", metadata={"help": "Compiler of emitted C: zig, gcc, clang, cc."}
    )
    precision: str = field(
        default="fp32",
        metadata={
            "help": "Products with constant weights in emitted C: fp32, or bf16, which keeps the "
            "weights in half the bytes and needs --isa avx512 and a processor with avx512_bf16."
        },
    )
    tune: bool = field(
        default=False,
        metadata={
            "help": "Measure the algorithms and tiles of every layer of emitted C on this machine "
            "and take the fastest; the record is tuning.json in the folder."
        },
    )
    tuning: Path | None = field(
        default=None,
        metadata={"help": "A tuning.json of --tune to take the choices from.", "metavar": "FILE"},
    )


@dataclass(frozen=True, kw_only=True)
class Optimize(Talk, Output, ImportOptions, Shapes, Data, SizeGate, Explain, OptimizeConfig):
    """Exact graph passes; the outputs stay the same."""

    model: str = field(metadata={"help": "An ONNX file.", "positional": True})


@dataclass(frozen=True, kw_only=True)
class Quantize(
    Talk, Output, ImportOptions, Shapes, Data, Evaluated, Gates, Timing, TrainConfig, QuantizeConfig
):
    """Quantise, measure, and keep the limits."""

    train: bool = field(
        default=False,
        metadata={
            "help": "Train a static scheme with its rounding in place, on --data; the options from "
            "--epochs to --checkpoint are for that."
        },
    )

    model: str = field(
        metadata={"help": "An ONNX file or any other source of convert.", "positional": True}
    )
    calib: str | None = field(
        default=None,
        metadata={
            "help": "Calibration samples, not a part of --data; 'synthetic' for random ones.",
            "metavar": "DATA",
        },
    )
    calib_samples: int = field(
        default=DEFAULT_CALIB_SAMPLES,
        metadata={"help": "Samples for calibration, from --data or --calib.", "min": 1},
    )
    target_cpu: str | None = field(
        default=None,
        metadata={
            "help": "Also compute the result as this processor does and warn where that differs "
            "(avx2 saturates products of uint8 and int8); see --reduce-range, --activations.",
            "metavar": "CPU",
        },
    )
    explain: bool = field(
        default=False, metadata={"help": "Show every node that stays in float, and why."}
    )


@dataclass(frozen=True, kw_only=True)
class Compress(Talk, Output, ImportOptions, Shapes, Data, Evaluated, DropGate, Timing, TrainConfig):
    """What all methods that train have in common."""

    model: str = field(
        metadata={"help": "An ONNX file or any other source of convert.", "positional": True}
    )
    seed: int = field(default=0, metadata={"help": "Seed of every random choice.", "min": 0})


@dataclass(frozen=True, kw_only=True)
class Prune(Compress, Explain, NormalConfig, PruneConfig):
    """Remove channels or weights, train what is left, measure, and keep the limits."""


def _rate(default: float) -> float:
    """The option of the learning rate for methods that start near their source."""
    (option,) = (f for f in fields(TrainConfig) if f.name == "learning_rate")
    found: float = field(default=default, metadata=option.metadata)
    return found


@dataclass(frozen=True, kw_only=True)
class Cluster(Compress, Explain, ClusterConfig):
    """Give weights few values, train them, measure, and keep the limits."""

    learning_rate: float = _rate(0.001)


@dataclass(frozen=True, kw_only=True)
class Factorize(Compress, Explain, FactorizeConfig):
    """Cut layers into two of low rank, train them, measure, and keep the limits."""

    learning_rate: float = _rate(0.002)


@dataclass(frozen=True, kw_only=True)
class Distill(Compress, Explain, NormalConfig, DistillConfig):
    """Train a smaller student to imitate its teacher."""

    model: str = field(metadata={"help": "The teacher.", "positional": True})


@dataclass(frozen=True, kw_only=True)
class Binarize(Compress, Explain, NormalConfig, BinarizeConfig):
    """Make weights, or weights and activations, one bit, train them, and keep the limits."""

    epochs: int = field(default=30, metadata=_metadata_of(TrainConfig, "epochs"))
    learning_rate: float = field(default=0.01, metadata=_metadata_of(TrainConfig, "learning_rate"))


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


COMMANDS: dict[str, type[Talk]] = {
    "convert": Convert,
    "optimize": Optimize,
    "quantize": Quantize,
    "prune": Prune,
    "distill": Distill,
    "binarize": Binarize,
    "cluster": Cluster,
    "factorize": Factorize,
    "run": Run,
    "verify": Verify,
    "bench": Bench,
    "inspect": Inspect,
    "doctor": Doctor,
}
