"""Foreign frameworks in this process, for tests of what they convert and not of the process."""

from __future__ import annotations

import json
import shutil
import weakref
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp

import pytest


class HereWorker:
    """What a worker does, without the seconds in which its process imports torch."""

    def __init__(self, module: str, source: str, options: dict) -> None:
        self.folder = Path(mkdtemp(prefix="infertool-test-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        options = json.loads(json.dumps(options))
        self._run, facts = import_module(module).open_source(source, self.folder, options)
        self.facts = json.loads(json.dumps(facts))

    def __call__(self, feeds: dict) -> dict:
        return self._run(feeds)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch sources open in this process."""
    monkeypatch.setattr("infer_tool.importers.torch_source.Worker", HereWorker)
