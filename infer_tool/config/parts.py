"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - the command line reads these annotations at run time

DEFAULT_CALIB_SAMPLES = 128
THREADS_HELP = "Threads of the engine; 0 is its default."
ENGINE_HELP = "Engine: onnxruntime, reference, openvino, native. Default: the fastest one here."


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
    max_memory: str | None = field(
        default=None,
        metadata={
            "help": "Stop when this process and its children hold more, e.g. 4GB, as when the time "
            "is up (Linux).",
            "metavar": "SIZE",
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
