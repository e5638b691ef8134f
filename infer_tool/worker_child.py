"""The other side of `infer_tool.worker`: one question a line on stdin, one answer on stdout."""

from __future__ import annotations

import json
import os
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
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())  # frameworks print, also from C++
    run: Run | None = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if run is None:
                run, answer = _open(question)
            else:
                answer = _run(run, question)
        except InferError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        except Exception as error:  # noqa: BLE001 - the parent raises it
            # Frameworks raise classes of many packages; all of them mean that it cannot be done.
            answer = {"error": "ModelError", "text": reason(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


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
