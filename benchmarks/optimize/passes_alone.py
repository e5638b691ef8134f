"""Seconds of the exact passes on a file, without reading and writing: `python ... MODEL`."""

from __future__ import annotations

import sys
import time

from infer_tool.importers import ImportOptions, import_source
from passes.pipeline import optimize

if __name__ == "__main__":
    model = import_source(sys.argv[1], ImportOptions()).model
    start = time.perf_counter()
    optimize(model)
    print(f"{time.perf_counter() - start:.4f}")
