"""Commands on broken models, one process for all of them: `mutants_child.py FOLDER NUMBER...`.

Prints a JSON line for each command before it starts and when it is over, so that a crash has a name.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from mutations import models, mutant

from infer_tool.cli import main

SECONDS = 10


def too_long(signum: int, frame: object) -> None:
    """Whatever runs has had its time."""
    raise TimeoutError


def peak_bytes() -> int:
    """Most memory since the last call."""
    status = Path("/proc/self/status").read_text()
    peak = next(int(x.split()[1]) << 10 for x in status.splitlines() if x.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return peak


def attempt(words: list[str]) -> dict[str, object]:
    """Run a command line; what it answered and took."""
    out, err = io.StringIO(), io.StringIO()
    start = time.monotonic()
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status: object = main([*words, "--json"])
    except BaseException as error:  # noqa: BLE001 - anything at all is a finding
        status = repr(error)
    finally:
        signal.alarm(0)
    lines = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
    return {
        "status": status, "seconds": time.monotonic() - start, "peak": peak_bytes(),
        "errors": lines, "traceback": "Traceback" in err.getvalue(),
        "json": _is_json(out.getvalue()),
    }  # fmt: skip


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def trial(folder: Path, numbers: list[int]) -> None:
    """Each mutant through three commands."""
    signal.signal(signal.SIGALRM, too_long)
    sources = models()
    talk = os.fdopen(os.dup(1), "w")
    path, whole, output = folder / "m.onnx", folder / "whole.onnx", folder / "o.onnx"
    for number in numbers:
        rng = random.Random(number)
        path.write_bytes(mutant(sources, number, rng).SerializeToString())
        whole.write_bytes(sources[number % len(sources)].SerializeToString())
        for words in (
            ["inspect", str(path)],
            ["optimize", str(path), "-o", str(output)],
            ["verify", str(whole), str(path)],
        ):
            row: dict[str, object] = {"number": number, "command": words[0]}
            print(json.dumps(row), file=talk, flush=True)
            row |= attempt(words)
            row["left"] = sorted({p.name for p in folder.iterdir()} - {path.name, whole.name})
            output.unlink(missing_ok=True)
            print(json.dumps(row), file=talk, flush=True)


if __name__ == "__main__":
    trial(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]])
