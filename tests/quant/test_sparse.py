"""Weights stored without their zeros: the same bits on every engine, and a smaller file."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from quant.domain import inline_functions
from quant.sparse import decode, encode, restore_dense, store_sparse
from quant.store import forget_formats

RNG = np.random.default_rng(7)


def sparse(shape: tuple[int, ...], density: float) -> np.ndarray:
    values = RNG.normal(size=shape).astype(np.float32)
    return np.where(RNG.random(shape) < density, values, np.float32(0))


@pytest.mark.parametrize("shape", [(1,), (7, 3), (64, 33, 3, 3), (2, 3000)])
@pytest.mark.parametrize("density", [0.0, 0.0005, 0.05, 0.3, 1.0])
def test_both_forms_give_every_element_back(shape, density) -> None:
    array = sparse(shape, density)
    np.testing.assert_array_equal(decode(encode(array)), array)


def test_the_smaller_form() -> None:
    """A bit for each of 100,000 places, or a byte for each of the kept ones."""
    many, few = encode(sparse((1000, 100), 0.25)), encode(sparse((1000, 100), 0.05))
    assert (many.form, few.form) == ("Mask", "Gaps")
    assert len(many.places) == 12500
    assert len(few.places) < 0.06 * 100_000


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("density", [0.2, 0.003])
def test_engines_compute_the_same_bits_from_less(
    make, run_ort, engine_ops, density, inline
) -> None:
    model = make(
        """g (float[N,16,6,6] x, float[32,16,3,3] w, float[32] b) => (float[N,32,4,4] y)
        { a = Conv(x, w, b)  y = Relu(a) }""",
        w=sparse((32, 16, 3, 3), density), b=np.ones(32, np.float32),
    )  # fmt: skip
    short = model.clone()
    assert store_sparse(short) == ["w"]
    if inline:
        inline_functions(short)
    x = {"x": RNG.normal(size=(2, 16, 6, 6)).astype(np.float32)}
    np.testing.assert_array_equal(run_ort(short, x)[0], run_ort(model, x)[0])
    np.testing.assert_array_equal(Session(short).run(x)["y"], Session(model).run(x)["y"])
    sizes = [len(ir.to_proto(m).SerializeToString()) for m in (short, model)]
    assert sizes[0] < (density + 1 / 32) * sizes[1] + 3000
    assert engine_ops(short).keys() <= {
        "Conv",
        "FusedConv",
        "Relu",
        "ReorderInput",
        "ReorderOutput",
    }


def test_what_stays_dense(make) -> None:
    """A weight that is full, one that is short, one that is a result, and integers."""
    model = make(
        """g (float[N,64] x, float[64,64] full, float[64,5] short, float[64,64] out, int64[1000] i)
        => (float[N,5] y, float[64,64] out, int64[1000] z)
        { a = MatMul(x, full)  b = MatMul(a, out)  y = MatMul(b, short)  z = Identity(i) }""",
        full=sparse((64, 64), 1), short=np.zeros((64, 5), np.float32),
        out=np.zeros((64, 64), np.float32), i=np.zeros(1000, np.int64),
    )  # fmt: skip
    assert store_sparse(model) == []
    assert not model.functions


def test_what_is_read_again_has_its_weights(make) -> None:
    """Under their names, so that other methods find them."""
    w = sparse((32, 40), 0.3)
    model = make("g (float[N,32] x, float[32,40] w) => (float[N,40] y) { y = MatMul(x, w) }", w=w)
    store_sparse(model)
    inline_functions(model)
    forget_formats(model)
    again = ir.from_proto(ir.to_proto(model))
    restore_dense(again)
    assert [n.op_type for n in again.graph] == ["MatMul"]
    np.testing.assert_array_equal(again.graph.initializers["w"].const_value.numpy(), w)
    assert list(again.graph.initializers) == ["w"]
