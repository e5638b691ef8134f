"""The child's side of a worker in this process: TensorFlow starts once for many small models."""

from __future__ import annotations

import json
import shutil
import weakref
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp


class InlineWorker:
    """As `infer_tool.worker.Worker`, which test_worker and test_tensorflow use."""

    def __init__(self, module, source, options) -> None:
        self.folder = Path(mkdtemp(prefix="infertool-test-"))
        weakref.finalize(self, shutil.rmtree, self.folder)
        asked = json.loads(json.dumps(options))
        self._run, facts = import_module(module).open_source(source, self.folder, asked)
        self.facts = json.loads(json.dumps(facts))

    def __call__(self, feeds):
        return self._run(feeds)
