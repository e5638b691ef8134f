"""The ONNX standard's own suites: every node case, and the models of `simple` and of PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.registry import known_ops

EXCLUDED = Path(__file__).with_name("conformance_excluded.txt")
KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")


def _excluded() -> dict[str, str]:
    lines = [line for line in EXCLUDED.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split(": ", 1) for line in lines)


def _cases() -> list[Any]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for kind in KINDS for case in load_model_tests(kind=kind)]


def _params() -> list[Any]:
    reasons = _excluded()

    def mark(name: str) -> list[Any]:
        reason = reasons.get(name)
        # Random numbers may be the wanted ones by chance.
        strict = reason is None or "random" not in reason
        return [] if reason is None else [pytest.mark.xfail(reason=reason, strict=strict)]

    return [
        pytest.param(case, id=f"{case.kind}-{case.name}", marks=mark(case.name)) for case in CASES
    ]


CASES = _cases()


def test_the_suites_are_there() -> None:
    names = {case.name for case in CASES}
    assert len(CASES) >= 2000
    assert names >= set(_excluded()), "an excluded case no longer exists"


def test_every_kernel_is_of_an_operator_that_exists() -> None:
    assert [op for op in known_ops() if not onnx.defs.has(op[1], domain=op[0])] == []


@pytest.mark.parametrize("case", _params())
def test_case(case: Any) -> None:
    model = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
    session = Session(ir.from_proto(model))
    names = _input_names(model)
    for inputs, outputs in case.data_sets or _stored(Path(case.model_dir)):
        found = session.run(dict(zip(names, map(_value, inputs), strict=False)))
        for value, wanted in zip(model.graph.output, outputs, strict=True):
            _assert_same(found[value.name], _value(wanted), case)


def _input_names(model: onnx.ModelProto) -> list[str]:
    """Inputs in order; those of old models that are weights come with the model."""
    weights = {i.name for i in model.graph.initializer}
    return [v.name for v in model.graph.input if v.name not in weights]


def _stored(folder: Path) -> list[tuple[list[Any], list[Any]]]:
    return [
        (_tensors(data, "input"), _tensors(data, "output"))
        for data in sorted(folder.glob("test_data_set_*"))
    ]


def _tensors(folder: Path, kind: str) -> list[Any]:
    count = len(list(folder.glob(f"{kind}_*.pb")))
    return [
        onnx.TensorProto.FromString((folder / f"{kind}_{i}.pb").read_bytes()) for i in range(count)
    ]


def _value(item: Any) -> Any:
    return ir.from_proto(item).numpy() if isinstance(item, onnx.TensorProto) else item


def _assert_same(got: Any, wanted: Any, case: Any) -> None:
    if isinstance(got, list):
        for one, other in zip(got, wanted, strict=True):
            _assert_same(one, _value(other), case)
        return
    wanted = np.asarray(wanted)
    assert got.shape == wanted.shape
    if got.dtype.kind == "O":
        assert got.reshape(-1).tolist() == [_text(v) for v in wanted.reshape(-1)]
        return
    assert got.dtype == wanted.dtype
    a, b = got.astype(np.complex128), wanted.astype(np.complex128)
    np.testing.assert_allclose(a, b, rtol=case.rtol, atol=case.atol)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
