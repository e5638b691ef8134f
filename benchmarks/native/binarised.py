"""Whole networks from `infertool binarize`, in emitted C, beside their float32 sources.

    python benchmarks/native/binarised.py [--cache FOLDER] [--resnet FILE] [--only TEXT]
        [--seconds S] [--compiler NAME]

ResNet8 (a float .tflite, where given) and ResNet-18 with random weights, batch 1, one thread, every
engine by turns in one process, medians in microseconds. Training is as short as it can be: speed
does not depend on the weights. A network whose activations are binary too must be at least four
times as fast as its source in the best engine (ONNX Runtime, OpenVINO in float32, LiteRT, ncnn,
MNN: those that are here). One whose weights alone are must hold them packed, and lose at most a
tenth of the speed of its source in emitted C. Exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import run  # first: it sets one thread  # isort: skip
import numpy as np
import onnx_ir as ir
import peers
from models import TORCH_MODELS, Case, _imported

from infer_native import NativeModel, build_library, emit_model
from infer_runtime import Session
from infer_tool.config import ImportOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST = 4.0  # times the speed of the best engine on the source
SLOWEST = 1.1  # times the source in emitted C, for weights alone
PACKED = {"w1a1": 0.15, "w2a1": 0.2, "w1a32": 0.15, "w2a32": 0.2}  # of the bytes of the source
FORMS = {
    "w1a1": ("binary", "binary"), "w2a1": ("ternary", "binary"), "w1a32": ("binary", "none"),
    "w2a32": ("ternary", "none"),
}  # fmt: skip
SAMPLES, BATCH = 12, 2
OURS = "fp32 C"
ENGINES = [name for name in peers.PEERS if name not in run.REDUCED]
ERROR = 1e-4  # of the largest number of the output


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=run.CACHE, help="folder for the models")
    parser.add_argument("--resnet", type=Path, help="a float ResNet8 as .tflite")
    parser.add_argument("--only", default="", help="networks whose name holds this text")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each engine and network")
    parser.add_argument("--compiler", default="auto")
    options = parser.parse_args()
    status = 0
    for case in _cases(options.cache, options.resnet):
        if options.only in case.name:
            status |= _measured(case, options)
    return status


def _cases(cache: Path, resnet: Path | None) -> Iterator[Case]:
    work = cache / "native-benchmark"
    work.mkdir(parents=True, exist_ok=True)
    if resnet is not None:
        yield _imported(work, "ResNet8", resnet, ImportOptions(), None, resnet)
    shape = (1, 3, 224, 224)
    given = ImportOptions(input=("image:" + "x".join(map(str, shape)),))
    yield _imported(work, "ResNet18", f"{TORCH_MODELS}:resnet18", given, shape, None)


def _measured(case: Case, options: argparse.Namespace) -> int:
    """All forms of a network and its source, by turns; 1 when a target is missed."""
    runs: dict[str, run.Run] = {}
    sizes = {"source": case.path.stat().st_size}
    errors: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, path in {OURS: case.path, **_forms(case, work)}.items():
            place = work / name.replace(" ", "_")
            place.mkdir()
            runs[name], sizes[name], errors[name] = _native(case, path, options.compiler, place)
        for name in ENGINES:
            if (opened := run._opened(name, case, case.path, work)) is not None:
                runs[name] = opened
        times, least = run.interleaved(runs, options.seconds, turns=20)
    print(f"{case.name:10}" + "".join(f"{n:>10}" for n in runs))
    print(f"{'':10}" + "".join(f"{times[n]:>10.1f}" for n in runs))
    here = [n for n in ENGINES if n in times]
    return max(_judged(name, times, least, sizes, errors, here) for name in FORMS)


def _judged(
    name: str, times: dict[str, float], least: dict[str, float], sizes: dict[str, int],
    errors: dict[str, float], engines: list[str],
) -> int:  # fmt: skip
    """Print a form beside what it is measured by; 1 when it misses its target."""
    quiet = min(least[n] for n in engines) / least[name]
    ratio, share = min(times[n] for n in engines) / times[name], sizes[name] / sizes["source"]
    own, own_quiet = (found[name] / found[OURS] for found in (times, least))
    good = ratio >= LEAST if name == "w1a1" else name == "w2a1" or own <= SLOWEST
    good &= share <= PACKED[name] and errors[name] <= ERROR
    asked = f", asked {LEAST:g} " if name == "w1a1" else " "
    print(
        f"  {name:6} {ratio:5.2f} times as fast as the best engine{asked}(shortest runs "
        f"{quiet:.2f}), {own:.2f} of the time of fp32 in C (shortest runs {own_quiet:.2f}), "
        f"{sizes[name]} bytes of weights, "
        f"{100 * share:.1f} % of the source, error {errors[name]:.0e}: "
        f"{'ok' if good else 'MISSED'}",
        flush=True,
    )
    return int(not good)


def _native(case: Case, path: Path, compiler: str, work: Path) -> tuple[run.Run, int, float]:
    """To call it, the bytes of its weights, and how far it is from the reference."""
    model = ir.load(path)
    emitted = emit_model(model, {n: v.shape for n, v in case.feeds.items()})
    native = NativeModel(emitted, build_library(emitted, compiler=compiler, folder=work))
    wanted = Session(model).run(case.feeds).values()
    error = max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-9))
        for a, b in zip(native.run(case.feeds).values(), wanted, strict=True)
    )
    return native.bind(case.feeds), len(emitted.weights), error


def _forms(case: Case, work: Path) -> dict[str, Path]:
    """The network in each form; made again each time, as training may change."""
    data = work / "data.npz"
    rng = np.random.default_rng(0)
    several = {
        n: np.concatenate([v * rng.uniform(0.5, 1.2) for _ in range(SAMPLES)]).astype(v.dtype)
        for n, v in case.feeds.items()
    }
    np.savez(data, **several)
    found = {}
    for name, (weights, activations) in FORMS.items():
        made = found[name] = work / f"{name}.onnx"
        command = [sys.executable, "-m", "infer_tool", "binarize", str(case.path), "-o", str(made)]
        command += ["--data", str(data), "--weights", weights, "--activations", activations]
        command += ["--epochs", "1", "--batch-size", str(BATCH), "--runs", "0", "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return found


if __name__ == "__main__":
    sys.exit(main())
