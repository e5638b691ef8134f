"""The other side of `infer_tool.worker`: one question a line on stdin, one answer on stdout."""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import InferError
from infer_tool import exchange
from infer_tool.reason import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def main() -> None:
    """Open the source that the first line names, then run it as often as asked."""
    # Frameworks print, also from C++, and may read: the pipes are kept from them.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    questions = os.fdopen(os.dup(sys.stdin.fileno()))
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    run: Run | None = None
    source = folder = ""
    for line in questions:
        question = json.loads(line)
        source, folder = source or question["source"], folder or question["folder"]
        try:
            if run is None:
                run, answer = _open(question)
            else:
                answer = _run(run, question)
        except InferError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        except Exception as error:  # noqa: BLE001 - the parent raises it
            # Frameworks raise classes of many packages; all of them mean that it cannot be done.
            done = "opened" if run is None else "run"
            text = f"{source}: cannot be {done} by its framework: {reason(error)}"
            answer = {"error": "ModelError", "text": text}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    shutil.rmtree(folder, ignore_errors=True)  # the parent ended without a chance to do it


def _open(question: Mapping[str, Any]) -> tuple[Run, dict[str, Any]]:
    module = import_module(question["module"])
    run, facts = module.open_source(
        question["source"], Path(question["folder"]), question["options"]
    )
    return run, facts


def _run(run: Run, question: Mapping[str, Any]) -> dict[str, Any]:
    feeds = Path(question["feeds"])
    outputs = feeds.with_name("outputs.npz")
    types = exchange.write(outputs, run(exchange.read(feeds, question["types"])))
    return {"outputs": str(outputs), "types": types}


if __name__ == "__main__":
    main()
