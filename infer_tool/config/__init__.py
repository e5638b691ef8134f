"""What every command accepts: one frozen dataclass per command.

A field is the option of the command line, the key of a recipe and the keyword of the Python
function at once. This module imports nothing heavy: `infertool --help` reads it.
"""

from __future__ import annotations

from infer_tool.config.models import Convert, Optimize, Quantize
from infer_tool.config.parts import (
    DEFAULT_CALIB_SAMPLES,
    Data,
    DropGate,
    Evaluated,
    Gates,
    ImportOptions,
    Output,
    Shapes,
    SizeGate,
    Talk,
    Timing,
)
from infer_tool.config.questions import Bench, Doctor, Inspect, Run, Verify
from infer_tool.config.training import Binarize, Cluster, Compress, Distill, Factorize, Prune

__all__ = [
    "COMMANDS",
    "DEFAULT_CALIB_SAMPLES",
    "Bench",
    "Binarize",
    "Cluster",
    "Compress",
    "Convert",
    "Data",
    "Distill",
    "Doctor",
    "DropGate",
    "Evaluated",
    "Factorize",
    "Gates",
    "ImportOptions",
    "Inspect",
    "Optimize",
    "Output",
    "Prune",
    "Quantize",
    "Run",
    "Shapes",
    "SizeGate",
    "Talk",
    "Timing",
    "Verify",
]

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
