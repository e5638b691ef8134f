"""Measure what a layer can choose from: in place, by builds of the whole model.

Build number n gives every layer its candidate number n and a clock around each call, so that a
layer is measured with the caches as they are in the model. The builds run by turns.
"""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from infer_native.build import build_library, find_compiler
from infer_native.emit import emit_prepared
from infer_native.load import NativeModel
from infer_native.prepare import prepare
from infer_native.tuning import Measured, Tuning
from infer_runtime.errors import InferError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import onnx_ir as ir

    from infer_native.choices import Choice
    from infer_native.emit import Emitted
    from infer_native.isa import Isa

    Array = np.ndarray[Any, Any]
    Times = dict[str, float]

SECONDS = 3.0  # of running, for all builds together
ROUNDS = 5  # at least
AT_ONCE = 3  # runs of a build before the next one's turn, after one that is not counted
GAIN = 0.03  # below it a difference is noise, and the cost model's choice stays


def tune(
    model: ir.Model, shapes: Mapping[str, Sequence[int]], isa: Isa, feeds: Mapping[str, Array],
    compiler: str = "auto",
) -> Tuning:  # fmt: skip
    """Build the candidates, run them on `feeds`, keep the fastest of each geometry.

    Raises:
        MissingExtraError: there is no compiler, or this machine lacks the instructions.
        ModelError, UsageError: as `emit_model`.

    """
    chosen = find_compiler(compiler)
    prepared = prepare(model, shapes)
    options: dict[str, tuple[Choice, ...]] = {}

    def first(key: str, found: tuple[Choice, ...]) -> Choice:
        options[key] = found
        return found[0]

    emit_prepared(prepared, isa, first)
    with TemporaryDirectory(prefix="infertool-tune-") as work:
        runs = []
        for number in range(max(map(len, options.values()), default=0)):
            emitted = emit_prepared(prepared, isa, _number(number), timed=True)
            library = build_library(emitted, compiler=compiler, folder=Path(work))
            runs.append(_Build(emitted, library, feeds))
        _by_turns(runs)
        times = [run.medians() for run in runs]
    layers = {key: _best(key, found, times) for key, found in options.items()}
    return Tuning(isa.label, f"{chosen.name} {_version(chosen.command)}", layers)


def _number(number: int) -> Callable[[str, tuple[Choice, ...]], Choice]:
    """Candidate `number` of every layer, the first one where there are fewer."""
    return lambda _, found: found[number] if number < len(found) else found[0]


class _Build:
    """One build, and nanoseconds of each call of each run."""

    def __init__(self, emitted: Emitted, library: Path, feeds: Mapping[str, Array]) -> None:
        self._choices = emitted.choices
        self._bound = NativeModel(emitted, library).bind(feeds)
        count = len(emitted.operators)
        self._clock = (ctypes.c_uint64 * count).in_dll(ctypes.CDLL(str(library)), "model_ns")
        self._runs: list[list[int]] = []

    def run(self, count: int) -> None:
        """Run and note the times of all runs but the first, which finds the caches cold."""
        for number in range(count + 1):
            self._bound()
            if number:
                self._runs.append(list(self._clock))

    def medians(self) -> dict[tuple[str, str], float]:
        """Microseconds by geometry and choice, the mean of the layers that share them."""
        calls = [statistics.median(times) / 1000 for times in zip(*self._runs, strict=True)]
        found: dict[tuple[str, str], list[float]] = {}
        for made in self._choices:
            found.setdefault((made.key, made.choice), []).append(calls[made.call])
        return {key: statistics.fmean(values) for key, values in found.items()}


def _by_turns(runs: Sequence[_Build]) -> None:
    end, turn = time.perf_counter() + SECONDS, 0
    while runs and (turn < ROUNDS or time.perf_counter() < end):
        for run in runs:
            run.run(AT_ONCE)
        turn += 1


def _best(key: str, options: tuple[Choice, ...], times: Sequence[Mapping[Any, float]]) -> Measured:
    """The fastest candidate, where it beats the first one by more than noise."""
    found = {
        str(option): min(t[key, str(option)] for t in times if (key, str(option)) in t)
        for option in options
    }
    best, default = min(found, key=lambda name: found[name]), str(options[0])
    if found[best] > (1 - GAIN) * found[default]:
        best = default
    return Measured(best, {name: round(t, 3) for name, t in found.items()})


def _version(command: Sequence[str]) -> str:
    """What the compiler says of itself."""
    done = subprocess.run([*command, "-dumpversion"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InferError(f"{command[0]} does not tell its version: {done.stderr.strip()[:100]}")
    return done.stdout.strip()
