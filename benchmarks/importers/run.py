"""Every importer on real models, beside the framework that the model comes from.

    python benchmarks/importers/run.py [MODELS] [--only TEXT]

Prints one table: model, route, nodes after the import, seconds of the import, and the largest
error against the source framework, relative to the largest value of the output. Exits 1 when an
error is beyond its limit or an import fails. MODELS is a folder with ResNet8 for CIFAR-10 as
resnet8_cifar10.h5 and resnet8_cifar10_float.tflite.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

# The modules beside this one have the names of frameworks: import them as parts of a package.
sys.path[0] = str(Path(__file__).parents[1])
sys.path.insert(1, str(Path(__file__).parents[2]))

if TYPE_CHECKING:
    from importers.row import Row

# Each has a function rows(only, models) -> Iterator.
MODULES = ("onnx", "torch", "tflite", "tensorflow", "formats")


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="models or importers whose name holds this")
    parser.add_argument("models", nargs="?", type=Path, help="folder with the files of ResNet8")
    options = parser.parse_args()
    only = options.only
    print(f"{'importer':<12}{'model':<34}{'nodes':>6}{'seconds':>9}{'error':>10}  route")
    failed = []
    for name in MODULES:
        if find_spec(f"importers.{name}") is None:
            continue
        for row in import_module(f"importers.{name}").rows(
            "" if only in name else only, options.models
        ):
            print(line(name, row), flush=True)
            failed += [] if row.passed else [f"{name}: {row.model}"]
    print(f"failed: {', '.join(failed)}" if failed else "all within their limits")
    return 1 if failed else 0


def line(importer: str, row: Row) -> str:
    """One line of the table."""
    numbers = f"{row.nodes:>6}{row.seconds:>9.2f}{row.error:>10.1e}"
    return f"{importer:<12}{row.model:<34}{numbers}  {row.route} {row.note}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
