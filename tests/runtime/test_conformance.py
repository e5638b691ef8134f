"""The ONNX standard's own node cases, for every operator that has a kernel here."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.registry import find_kernel

EXCLUDED = Path(__file__).with_name("conformance_excluded.txt")


def _excluded() -> dict[str, str]:
    lines = [line for line in EXCLUDED.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split(": ", 1) for line in lines)


def _cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        return [case for case in load_model_tests(kind="node") if _has_kernels(case)]


def _has_kernels(case: Any) -> bool:
    """Every node of the case has a kernel of our own."""
    opset = next((o.version for o in case.model.opset_import if o.domain == ""), 0)
    functions = itertools.chain(*(f.node for f in case.model.functions))
    nodes = [*case.model.graph.node, *functions]
    return bool(opset) and all(find_kernel(n.domain, n.op_type, opset) for n in nodes)


def _numbers(array: np.ndarray) -> np.ndarray:
    """Comparable numbers of any dtype; strings stay strings."""
    return array if array.dtype.kind in "OUS" else array.astype(np.complex128)


CASES = _cases()
REASONS = _excluded()


def test_the_suite_is_there() -> None:
    assert len(CASES) > 900
    assert {c.name for c in CASES} >= set(REASONS), "an excluded case no longer exists"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_node(case: Any) -> None:
    if case.name in REASONS:
        pytest.xfail(REASONS[case.name])
    session = Session(ir.from_proto(case.model))
    for inputs, outputs in case.data_sets:
        names = [v.name for v in case.model.graph.input]
        found = session.run(dict(zip(names, inputs, strict=False)))
        for value, wanted in zip(case.model.graph.output, outputs, strict=True):
            got = found[value.name]
            assert got.dtype == wanted.dtype
            assert got.shape == wanted.shape
            np.testing.assert_allclose(
                _numbers(got), _numbers(wanted), rtol=case.rtol, atol=case.atol
            )
