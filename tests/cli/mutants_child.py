"""Commands on broken models, without starting Python for each: `mutants_child.py FOLDER NUMBER...`.

Prints a JSON line for each. Every command runs in a process of its own, as the real one does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from mutations import models, mutant

from infer_tool.cli import _guarded

# Once, before the forks.
IMPORTED = (
    "onnxruntime", "onnx.reference", "onnxscript.version_converter", "onnx_ir.passes.common",
    "infer_tool.api", "infer_tool.commands.inspect", "infer_tool.commands.optimize",
    "infer_tool.commands.verify", "infer_tool.importers.onnx", "infer_tool.report.terminal",
    "infer_runtime.ops.onnx_fallback", "passes.default", "jinja2",
)  # fmt: skip

SECONDS = 10


def attempt(words: list[str], folder: Path) -> dict[str, object]:
    """Run a command line; what it answered and took."""
    out, err = folder / "out.txt", folder / "err.txt"
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        signal.alarm(SECONDS)  # nobody catches it
        status = _guarded([*words, "--json"])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, ended, usage = os.wait4(child, 0)
    said = err.read_text(errors="replace")
    row = {
        "status": os.waitstatus_to_exitcode(ended), "seconds": time.monotonic() - start,
        "peak": usage.ru_maxrss << 10, "traceback": "Traceback" in said,
        "errors": [line for line in said.splitlines() if line.startswith("error: ")],
        "json": _is_json(out.read_text()),
    }  # fmt: skip
    out.unlink()
    err.unlink()
    return row


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def trial(folder: Path, numbers: list[int]) -> None:
    """Each mutant through three commands."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sources = models()
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
            row = {"number": number, "command": words[0], **attempt(words, folder)}
            row["left"] = sorted({p.name for p in folder.iterdir()} - {path.name, whole.name})
            output.unlink(missing_ok=True)
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    trial(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]])
