"""Compiling emitted C into a folder of the test run; skipped visibly where there is no compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import pytest

from infer_native import NativeModel, build_library, emit_model
from infer_native.build import find_compiler
from infer_runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


@pytest.fixture(scope="session")
def compiler() -> str:
    """A system's own compiler starts faster than zig."""
    for name in ("gcc", "clang", "zig"):
        try:
            return find_compiler(name).name
        except MissingExtraError:
            continue
    pytest.skip("no C compiler here")


@pytest.fixture(scope="session")
def library_folder(tmp_path_factory: pytest.TempPathFactory):
    return tmp_path_factory.mktemp("native")


@pytest.fixture
def native(library_folder, compiler: str) -> Callable[..., dict[str, np.ndarray[Any, Any]]]:
    """native(model, feeds, isa, extra): the outputs of the compiled model."""

    def run(
        model: ir.Model, feeds: dict[str, Any], isa: str = "auto", extra: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        emitted = emit_model(model, {n: v.shape for n, v in feeds.items() if v.ndim}, isa)
        path = build_library(emitted, compiler=compiler, folder=library_folder, extra=extra)
        return NativeModel(emitted, path).run(feeds)

    return run
