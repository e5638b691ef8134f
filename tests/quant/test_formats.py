"""Formats, packing and their place in a graph, against ml_dtypes, NumPy and ONNX Runtime."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_runtime import Session
from infer_runtime.errors import ModelError
from quant import tensor
from quant.domain import inline_functions
from quant.formats import FORMATS, FloatFormat, IntegerFormat, PaletteFormat
from quant.granularity import PerAxis, PerBlock, PerTensor
from quant.hqq import hqq
from quant.packing import pack, unpack
from quant.store import Store
from quant.tensor import group_parameters, quantize_tensor

R = np.random.default_rng(5)
W = R.normal(size=(6, 64)).astype(np.float32)
KINDS = [PerTensor(), PerAxis(0), PerAxis(1), PerBlock(1, 16), PerBlock(0, 3)]


@given(st.integers(1, 8), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_packing_round_trip(bits, size, seed) -> None:
    levels = np.random.default_rng(seed).integers(0, 2**bits, size).astype(np.uint8)
    packed = pack(levels, bits)
    assert packed.size <= -(-size // 8) * bits
    np.testing.assert_array_equal(unpack(packed, bits, (size,)), levels)


def test_packing_by_hand() -> None:
    np.testing.assert_array_equal(pack(np.uint8([1, 2, 15]), 4), [0x21, 0x0F])
    np.testing.assert_array_equal(pack(np.uint8([1, 2, 3, 0, 2]), 2), [0b00111001, 2])
    np.testing.assert_array_equal(pack(np.uint8([5, 2, 7]), 3), [[0b101], [0b110], [0b101]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if isinstance(f, IntegerFormat)])
def test_integers_within_half_a_step(name, kind) -> None:
    form = FORMATS[name]
    scale, zero = group_parameters(W, form, kind)
    assert (zero is None) == form.signed
    tensor = quantize_tensor(W, form, kind)
    assert tensor.levels.min() >= form.low
    assert tensor.levels.max() <= form.high
    step = kind.spread(scale, W)
    # A zero point that is rounded moves the ends of the range by half a step at most.
    assert np.all(np.abs(tensor.real() - W) <= step * (0.501 if form.signed else 1.001))


@pytest.mark.parametrize(("name", "dtype"), [("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_floats_are_casts(name, dtype) -> None:
    np.testing.assert_array_equal(
        quantize_tensor(W, FORMATS[name], PerTensor()).real(), W.astype(dtype).astype(np.float32)
    )


@pytest.mark.parametrize("name", ["fp8-e4m3", "fp8-e5m2"])
def test_scaled_floats_saturate(name) -> None:
    form = FORMATS[name]
    assert isinstance(form, FloatFormat)
    ones, zero = np.ones((), np.float32), np.zeros((), np.int64)
    real = form.dequantize(form.quantize(np.array([1e9, -1e9, 1.0]), ones, zero), ones, zero)
    np.testing.assert_array_equal(real, [form.largest, -form.largest, 1])
    error = quantize_tensor(W, form, PerAxis(0)).real() - W
    assert np.sqrt(np.mean(error**2) / np.mean(W**2)) < (0.03 if name == "fp8-e4m3" else 0.06)


def test_palette_finds_the_clusters() -> None:
    centres = np.float32([-3, -0.5, 0.25, 2])
    x = centres[R.integers(0, 4, 400)]
    form = FORMATS["palette2"]
    assert isinstance(form, PaletteFormat)
    np.testing.assert_allclose(form.fit(x), centres)
    tensor = quantize_tensor(x, form, PerTensor())
    np.testing.assert_array_equal(tensor.real(), x)


def test_palette_beats_equal_steps_of_as_many_bits() -> None:
    x = R.laplace(size=(64, 64)).astype(np.float32)
    errors = [
        np.mean((quantize_tensor(x, FORMATS[n], PerTensor(), search=True).real() - x) ** 2)
        for n in ("palette4", "int4")
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("kind", KINDS)
def test_search_is_never_worse(kind) -> None:
    plain, best = (
        np.mean((quantize_tensor(W, FORMATS["int3"], kind, search=s).real() - W) ** 2)
        for s in (False, True)
    )
    assert best < plain


def test_hqq_beats_the_nearest_level_in_its_norm() -> None:
    heavy = R.standard_t(3, size=(32, 64)).astype(np.float32)
    kind = PerBlock(1, 32)
    plain = quantize_tensor(heavy, FORMATS["uint4"], kind).real() - heavy
    found = hqq(heavy, FORMATS["uint4"], kind).real() - heavy
    assert np.sum(np.abs(found) ** 0.7) < np.sum(np.abs(plain) ** 0.7)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_runs_everywhere(make, run_ort, name, kind, fold) -> None:
    """ONNX Runtime, exact and as deployed, and our runtime read what was stored, bit by bit."""
    model = make("t (float[6,64] x) => (float[6,64] y) { y = Identity(x) }")
    tensor = quantize_tensor(W, FORMATS[name], kind)
    node = model.graph[0]
    number = Store(model).number("w", tensor, fold=fold)
    node.op_type = "Add"
    node.resize_inputs(2)
    node.replace_input_with(1, number)
    zeros = {"x": np.zeros_like(W)}
    wanted = tensor.real()
    if name.startswith("palette") and name != "palette8":
        assert model.functions
        np.testing.assert_array_equal(run_ort(model, zeros)[0], wanted)
    inline_functions(model)
    assert not model.functions
    for got in (
        run_ort(model, zeros)[0],
        run_ort(model, zeros, optimize=True)[0],
        Session(model).run(zeros)["y"],
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)
    stored = sum(v.const_value.nbytes for v in model.graph.initializers.values())
    form = FORMATS[name]
    scales = 1100 if isinstance(form, PaletteFormat) else 4 * 2 * tensor.scale.size
    assert stored <= W.size * form.bits / 8 + scales + 120, "stored without gaps"


def test_opset_is_raised_only_where_it_must(make) -> None:
    opsets = {}
    for name in ("int8", "int4", "int3", "int2", "fp8-e4m3"):
        model = make("t (float[6,64] x) => (float[6,64] y) { y = Identity(x) }")
        Store(model).number("w", quantize_tensor(W, FORMATS[name], PerAxis(0)))
        opsets[name] = model.opset_imports[""]
    assert opsets == {"int8": 20, "int4": 21, "int3": 20, "int2": 25, "fp8-e4m3": 20}


def test_changed_operator_forbids_a_newer_opset(make) -> None:
    text = """t (float[1,4,2] x, float[2] s, float[2] b) => (float[1,4,2] y)
    { y = GroupNormalization<num_groups=2>(x, s, b) }"""
    model = make(text, s=np.ones(2, np.float32), b=np.zeros(2, np.float32))
    with pytest.raises(ModelError, match="another meaning"):
        Store(model).number("w", quantize_tensor(W, FORMATS["int4"], PerAxis(0)))


def test_packed_weights_say_what_they_are(make) -> None:
    model = make("t (float[6,64] x) => (float[6,64] y) { y = Identity(x) }")
    Store(model).levels("w", quantize_tensor(W, FORMATS["int3"], PerAxis(0)))
    (call,) = [n for n in model.graph if n.domain == "infertool"]
    assert call.metadata_props["infertool.format"] == "packed3"
    assert call.metadata_props["infertool.weight"] == "w"
    assert isinstance(model, ir.Model)


@pytest.mark.parametrize(
    "kind", [PerAxis(0), PerAxis(-1), PerBlock(1, 8), PerBlock(0, 8), PerTensor()], ids=str
)
@pytest.mark.parametrize("name", ["int8", "uint4", "fp8-e4m3"])
def test_pieces_make_the_whole(monkeypatch, name, kind) -> None:
    """Large tensors are worked on a piece at a time: the same numbers in the same shapes."""
    x = np.random.default_rng(5).normal(size=(50, 40, 3)).astype(np.float32)
    whole = tensor.quantize_tensor(x, FORMATS[name], kind, search=True)
    monkeypatch.setattr(tensor, "PIECE", 500)
    pieces = tensor.quantize_tensor(x, FORMATS[name], kind, search=True)
    np.testing.assert_array_equal(pieces.levels, whole.levels)
    np.testing.assert_array_equal(pieces.scale, whole.scale)
    assert (pieces.zero_point is None) == (whole.zero_point is None)
    if whole.zero_point is not None:
        np.testing.assert_array_equal(pieces.zero_point, whole.zero_point)
