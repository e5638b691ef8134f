"""Functions of binary layers: their bodies in ONNX Runtime, and the kernels that go before them."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from binary_calls import CONVS, convolution, model_of, model_of_calls

from infer_runtime import Session
from infer_runtime.functions import KERNELS, LOCAL, digest, with_kernels
from quant.binarize.functions import define_sign
from quant.packing import pack


@pytest.mark.parametrize("case", CONVS)
@pytest.mark.parametrize("name", ["XnorConv", "BinaryConv", "TernaryConv"])
def test_convolutions(run_ort, name, case) -> None:
    call = convolution(name, case)
    x, model = call.x, model_of_calls({"": call})
    (wanted,) = run_ort(model, {"x": x})
    found = Session(model).run({"x": x})["y"]
    assert (LOCAL, name, "") in with_kernels(model) or name != "XnorConv"
    if name == "XnorConv":
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run_ort(model, {"x": x}, optimize=True)[0], wanted, atol=1e-4)


@pytest.mark.parametrize("lead", [(5,), (2, 3), (1,)])
@pytest.mark.parametrize("name", ["XnorGemm", "BinaryGemm", "TernaryGemm"])
def test_rows(run_ort, name, lead) -> None:
    for size in (1, 13, 64, 200):
        x = np.random.default_rng(3).normal(size=(*lead, size)).astype(np.float32)
        model = model_of(name, x, (11, size))
        (wanted,) = run_ort(model, {"x": x})
        found = Session(model).run({"x": x})["y"]
        if name == "XnorGemm":
            np.testing.assert_array_equal(found, wanted)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_kernels_know_the_bodies_that_are_written() -> None:
    """When this fails the bodies have changed: files of before keep theirs, without a kernel."""
    for name in KERNELS:
        one = () if name == "XnorGemm" else (1,)
        model = model_of(name, np.zeros((3, 8, *one), np.float32), (4, 8, *one))
        assert digest(model, (LOCAL, name, "")) == KERNELS[name]


def test_another_body_under_the_same_name_is_what_it_says(run_ort) -> None:
    """Must not: the kernel of XnorGemm for a function that subtracts its bias."""
    x = np.random.default_rng(3).normal(size=(6, 40)).astype(np.float32)
    model = model_of("XnorGemm", x, (8, 40))
    before = Session(model).run({"x": x})["y"]
    function = model.functions[LOCAL, "XnorGemm", ""]
    (last,) = (n for n in function if n.op_type == "Add")
    last.op_type = "Sub"
    assert not with_kernels(model)
    (wanted,) = run_ort(model, {"x": x})
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"], wanted)
    assert np.abs(wanted - before).max() > 0.1


def test_nan_and_zeros_beside_the_threshold(run_ort) -> None:
    x = np.array([[np.nan, -0.0, 0.0, np.inf, -np.inf, 1e-45, -1e-45, 1.0]], np.float32)
    model = model_of("XnorGemm", x.copy(), (4, 8))
    model.graph.initializers["threshold"].const_value = ir.tensor(np.zeros(8, np.float32))
    wanted = run_ort(model, {"x": x})[0]
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"], wanted)


def test_ternary_levels_are_what_was_packed(run_ort) -> None:
    """All of -1, 0 and 1, by the sum of a row of each."""
    x = np.eye(9, dtype=np.float32)
    model = model_of("TernaryGemm", x, (5, 9))
    levels = np.array(list(itertools.islice(itertools.cycle((-1, 0, 1, 1)), 45))).reshape(5, 9)
    packed = pack((levels + 1).astype(np.uint8), 2)
    ones = {"packed": packed, "scale": np.ones((5, 1), np.float16), "bias": np.zeros(5, np.float32)}
    for name, array in ones.items():
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    np.testing.assert_array_equal(run_ort(model, {"x": x})[0], levels.T)
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"], levels.T)


def test_sign_is_a_function_of_its_own() -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="g")
    model = ir.Model(graph, ir_version=10)
    assert define_sign(model) == define_sign(model) == "Sign"
    assert [n.op_type for n in model.functions[LOCAL, "Sign", ""]][-1] == "Where"
