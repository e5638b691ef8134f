"""The ONNX standard's own node cases, for every operator that has a kernel here."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.registry import find_kernel, known_ops

EXCLUDED = Path(__file__).with_name("conformance_excluded.txt")


def _excluded() -> dict[str, str]:
    lines = [line for line in EXCLUDED.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split(": ", 1) for line in lines)


def _cases() -> list[Any]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in load_model_tests(kind="node") if _has_kernels(case)]


def _has_kernels(case: Any) -> bool:
    """Every node of the case has a kernel of our own."""
    opset = next((o.version for o in case.model.opset_import if o.domain == ""), 0)
    functions = itertools.chain(*(f.node for f in case.model.functions))
    nodes = [*case.model.graph.node, *functions]
    return bool(opset) and all(find_kernel(n.domain, n.op_type, opset) for n in nodes)


def _params() -> list[Any]:
    reasons = _excluded()

    def mark(name: str) -> list[Any]:
        return [pytest.mark.xfail(reason=reasons[name])] if name in reasons else []

    return [pytest.param(case, id=case.name, marks=mark(case.name)) for case in CASES]


CASES = _cases()


def test_the_suite_is_there() -> None:
    names = {case.name for case in CASES}
    assert len(names) > 1300
    assert names >= set(_excluded()), "an excluded case no longer exists"


def test_every_kernel_is_of_an_operator_that_exists() -> None:
    assert [op for op in known_ops() if not onnx.defs.has(op[1], domain=op[0])] == []


@pytest.mark.parametrize("case", _params())
def test_node(case: Any) -> None:
    session = Session(ir.from_proto(case.model))
    for inputs, outputs in case.data_sets:
        names = [v.name for v in case.model.graph.input]
        found = session.run(dict(zip(names, map(_value, inputs), strict=False)))
        for value, wanted in zip(case.model.graph.output, outputs, strict=True):
            _assert_same(found[value.name], _value(wanted), case)


def _value(item: Any) -> Any:
    return ir.from_proto(item).numpy() if isinstance(item, onnx.TensorProto) else item


def _assert_same(got: Any, wanted: Any, case: Any) -> None:
    if isinstance(got, list):
        for one, other in zip(got, wanted, strict=True):
            _assert_same(one, other, case)
        return
    wanted = np.asarray(wanted)
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    if got.dtype.kind in "OUS":
        assert got.tolist() == wanted.tolist()
    else:
        a, b = got.astype(np.complex128), wanted.astype(np.complex128)
        np.testing.assert_allclose(a, b, rtol=case.rtol, atol=case.atol)
