"""infertool: from a trained model to a small, fast, proven deployable file.

The functions are the commands; their keywords are the commands' options (`infer_tool.config`).
"""

from __future__ import annotations

from infer_tool.api import (
    bench,
    binarize,
    cluster,
    convert,
    distill,
    doctor,
    factorize,
    inspect,
    optimize,
    prune,
    quantize,
    run,
    verify,
)

__all__ = [
    "bench",
    "binarize",
    "cluster",
    "convert",
    "distill",
    "doctor",
    "factorize",
    "inspect",
    "optimize",
    "prune",
    "quantize",
    "run",
    "verify",
]
