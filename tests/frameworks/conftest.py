"""Frameworks that cannot be installed beside the others; tests/frameworks/run.sh brings them.

Without $INFERTOOL_<KIND>_PYTHON and without the package here, a test is skipped, and says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from infer_runtime import Session
from infer_tool.importers import ImportOptions, import_source


class Framework:
    """Writes code that uses a framework, runs it, imports what its factories return."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.python = os.environ.get(f"INFERTOOL_{kind.upper()}_PYTHON") or sys.executable
        self.kind, self.folder = kind, folder

    def write(self, code: str) -> Path:
        path = self.folder / "made.py"
        path.write_text(dedent(code))
        return path

    def run(self, code: str) -> None:
        subprocess.run([self.python, self.write(code)], cwd=self.folder, check=True)

    def load(self, code: str, factory: str, *inputs: str):
        """The factory of this code, imported; kind and names are as stated."""
        imported = import_source(f"{self.write(code)}:{factory}", ImportOptions(input=inputs))
        assert imported.kind == self.kind
        stated = {text.partition(":")[0] for text in inputs}
        assert {v.name for v in imported.model.graph.inputs} == stated
        return imported

    def agree(self, imported, **feeds: np.ndarray) -> dict[str, np.ndarray]:
        """The framework's outputs, which ours and ONNX Runtime's must equal."""
        path = self.folder / "model.onnx"
        ir.save(imported.model, path)
        session = ort.InferenceSession(path)
        names = [o.name for o in session.get_outputs()]
        wanted = imported.reference(feeds)
        assert set(wanted) == set(names)
        engine = dict(zip(names, session.run(None, feeds), strict=True))
        for got in (Session(imported.model).run(feeds), engine):
            for name, value in wanted.items():
                assert got[name].dtype == value.dtype
                np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-5, err_msg=name)
        return wanted


@pytest.fixture
def framework(request: pytest.FixtureRequest, tmp_path: Path) -> Framework:
    kind = request.module.KIND
    if not os.environ.get(f"INFERTOOL_{kind.upper()}_PYTHON") and find_spec(kind) is None:
        pytest.skip(f"{kind} is not here: bash tests/frameworks/run.sh {kind}")
    return Framework(kind, tmp_path)


@pytest.fixture
def normal():
    """Seeded float32 arrays."""
    generator = np.random.default_rng(3)
    return lambda *shape: (generator.normal(size=shape) + 0.25).astype(np.float32)
