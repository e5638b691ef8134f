"""Everything that `infertool binarize` writes, in emitted C, against the reference runtime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from binary_calls import CONVS, Call, convolution, model_of_calls
from networks import BINARY_FILTERS, binary_chain

from infer_native import emit_model
from infer_native.isa import ISAS, runs_here
from infer_runtime import Session

QUICK = ("-O1",)  # the sums are the same
HERE = [name for name, isa in ISAS.items() if runs_here(isa)]
WIDE = {
    "vectors in groups": (96, 64, 2, (5, 6), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "vectors in dilated groups": (64, 32, 2, (7, 9), (3, 2), (2, 1), (1, 0, 1, 1), (1, 2)),
    "a word and a byte": (40, 33, 1, (4, 17), (1, 5), (1, 2), (0, 2, 0, 2), (1, 1)),
    "more bits than a byte counts": (344, 8, 1, (1, 4), (1, 3), (1, 1), (0, 1, 0, 1), (1, 1)),
}
LONG = {
    "wide": (40, 33, 1, (13, 14), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "strides": (32, 20, 1, (9, 8), (3, 3), (2, 2), (0, 0, 1, 1), (1, 1)),
    "a picture": (3, 17, 1, (11, 12), (5, 5), (2, 2), (2, 2, 2, 2), (1, 1)),
    "groups": (32, 16, 2, (5, 6), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "a long line": (40, 24, 1, (17,), (4,), (1,), (2, 1), (1,)),
}
EXACT = {**CONVS, **WIDE}
CONVS.update(WIDE | LONG | {"few": (3, 4, 1, (9, 9), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1))})
ROWS = {"one": (1, 13), "a row": (1, 200), "rows": (7, 64), "many": (2, 9, 100), "long": (2, 1100)}


def calls(form: str) -> dict[str, Call]:
    """All geometries, of two axes or one, and rows."""
    found = {
        f"_{n}": convolution(f"{form}Conv", case, 2)
        for n, case in enumerate(EXACT)
        if case != "three axes"
    }
    rng = np.random.default_rng(5)
    for case, shape in ROWS.items():
        x = rng.normal(size=shape).astype(np.float32)
        found[f"_{case.replace(' ', '_')}"] = Call(f"{form}Gemm", x, (37, shape[-1]), {})
    return found


@pytest.mark.parametrize("isa", HERE)
def test_bits_are_those_of_the_reference(native, isa: str) -> None:
    given = calls("Xnor")
    model = model_of_calls(given)
    feeds = {f"x{key}": call.x for key, call in given.items()}
    operators = emit_model(model, isa=isa).operators
    assert not {"Conv", "Gemm", "MatMul"} & set(operators)
    assert operators.count("_BConv") == len(EXACT) - 1
    assert operators.count("_BRows") == len(ROWS)
    wanted = Session(model).run(feeds)
    for name, value in native(model, feeds, isa, QUICK).items():
        np.testing.assert_array_equal(value, wanted[name], err_msg=f"{isa} {name}")


@pytest.mark.parametrize("isa", HERE)
def test_what_goes_round_binary_layers_becomes_part_of_them(native, isa: str) -> None:
    model = binary_chain()
    feeds = {"x": np.random.default_rng(4).normal(size=(2, 24, 7, 6)).astype(np.float32)}
    wanted = Session(model).run(feeds)["y"]
    np.testing.assert_array_equal(native(model, feeds, isa, QUICK)["y"], wanted, err_msg=isa)
    operators = emit_model(model, isa=isa).operators
    assert operators.count("_BConv") == len(BINARY_FILTERS)
    if isa != "scalar":
        assert "_Map" not in operators
        # Vectors of whole bytes: only the bits of the input are made by a layer of its own.
        assert operators.count("_Signs") == (len(BINARY_FILTERS) if ISAS[isa].lanes < 8 else 1)


@pytest.mark.parametrize("isa", HERE)
def test_weights_stay_bits_in_the_blob(native, isa: str) -> None:
    given = {f"{key}_{form}": call for form in ("Binary", "Ternary") for key, call in packed(form)}
    model = model_of_calls(given)
    feeds = {f"x{key}": call.x for key, call in given.items()}
    emitted = emit_model(model, isa=isa)
    wanted = Session(model).run(feeds)
    for name, value in native(model, feeds, isa, QUICK).items():
        atol = 2e-6 * float(np.abs(wanted[name]).max())
        np.testing.assert_allclose(value, wanted[name], rtol=0, atol=atol, err_msg=name)
    # Scales, biases and lanes beyond the last output are not counted: they take the rest.
    bits = sum(np.prod(c.shape) * (2 if "Ternary" in n else 1) for n, c in given.items()) / 8
    assert bits < len(emitted.weights) < 2 * bits
    if isa == "avx512":
        assert "wg_spread6_" in emitted.source  # Winograd's points are made at use


def packed(form: str) -> list[tuple[str, Call]]:
    """Sums long enough to be worth it."""
    found = [(f"_{n}", convolution(f"{form}Conv", case, 2)) for n, case in enumerate(LONG)]
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3, 100)).astype(np.float32)
    tall = rng.normal(size=(11, 100)).astype(np.float32)
    return [*found, ("_tall", Call(f"{form}Gemm", tall, (37, 100), {})), ("_rows", Call(f"{form}Gemm", x, (37, 100), {})),
            ("_many", Call(f"{form}Gemm", x.reshape(1, 3, 100), (64, 100), {}))]  # fmt: skip


@pytest.mark.parametrize("isa", ["scalar", *HERE[-1:]])
def test_weights_that_stay_floats(isa: str) -> None:
    """Must not: sums of few products; one weight of another size, or not a number."""
    call = convolution("BinaryConv", "wide", 1)
    model = model_of_calls({"": call})
    assert "NXL(" in emit_model(model, isa=isa).source or isa == "scalar"
    size = len(emit_model(model, isa=isa).weights)
    for value in (1.5, np.nan):
        assert len(emit_model(_with(call, value), isa=isa).weights) > 10 * size
    few = emit_model(model_of_calls({"": convolution("BinaryConv", "few", 1)}), isa=isa)
    assert "NXL(" not in few.source
    assert "nx_levels(" not in few.source


def _with(call: Call, value: float) -> ir.Model:
    """The convolution as one of floats, one of which is `value`."""
    weights = np.ones(call.shape, np.float32)
    weights[0, 0, 0, 0] = value
    c, h, w = call.x.shape[1:]
    m = call.shape[0]
    model = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["": 20]> t (float[1,{c},{h},{w}] x, '
        f"float[{','.join(map(str, call.shape))}] w) => (float[1,{m},{h},{w}] y) "
        "{ y = Conv<pads = [1, 1, 1, 1]>(x, w) }"
    )
    (value_,) = model.graph.inputs[1:]
    value_.const_value = ir.tensor(weights)
    model.graph.register_initializer(value_)
    del model.graph.inputs[1:]
    return model


SIGNED = """<ir_version: 10, opset_import: ["": 20]>
t (float[4,40] x, float[40] t, float[4,40] u, float[40,8] w, float[4,8] v) => (float[n,m] y)
<float one = {1}, float other = {-1}> { BODY }"""
TWINS = {
    "g = GreaterOrEqual(x, t) s = Where(g, one, other) y = MatMul(s, w)": True,
    "g = Greater(x, t) s = Where(g, one, other) y = MatMul(s, w)": False,
    "g = GreaterOrEqual(x, t) s = Where(g, other, one) y = MatMul(s, w)": False,
    "g = GreaterOrEqual(x, u) s = Where(g, one, other) y = MatMul(s, w)": False,
    "g = GreaterOrEqual(t, x) s = Where(g, one, other) y = MatMul(s, w)": False,
    "g = GreaterOrEqual(x, t) s = Where(g, one, other) y = Gemm<alpha = 0.3>(s, w)": False,
    "g = GreaterOrEqual(x, t) s = Where(g, one, other) y = Gemm<transA = 1>(s, v)": False,
}


@pytest.mark.parametrize("body", TWINS)
def test_only_signs_are_counted(body: str) -> None:
    """Must not: another comparison, other numbers, limits of single elements, another product."""
    model = ir.from_onnx_text(SIGNED.replace("BODY", body))
    rng = np.random.default_rng(6)
    for value in list(model.graph.inputs[1:]):
        shape = value.shape.numpy()  # type: ignore[union-attr]
        drawn = rng.integers(0, 2, shape) * 2 - 1 if value.name in "vw" else rng.normal(size=shape)
        value.const_value = ir.tensor(drawn.astype(np.float32))
        model.graph.register_initializer(value)
    del model.graph.inputs[1:]
    assert ("_BRows" in emit_model(model, isa="scalar").operators) == TWINS[body]
