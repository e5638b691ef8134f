"""`--precision bf16`: factors rounded to bfloat16, everything else as in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import GEOMETRIES, convolutions, with_constants
from onnx import numpy_helper

from infer_native import NativeModel, build_library
from infer_native.emit import emit_model
from infer_native.isa import ISAS, at_precision, best_here, runs_here
from infer_runtime.errors import UsageError
from infer_tool.cli import main

SAMPLE = Path(__file__).parents[2] / "sample_models" / "digits_mlp.onnx"
WIDE = at_precision(ISAS["avx512"], "bf16")
needs_bf16 = pytest.mark.skipif(not runs_here(WIDE), reason="no avx512_bf16 here")
PRODUCTS = """<ir_version: 10, opset_import: ["": 20]>
t (int64[2,5] ids, float[2,5,37] a, float[1,70] r, float[200,40] table, float[37,50] w,
   float[33,70] g, float[33] c)
  => (float[2,5,40] looked, float[2,5,50] rows, float[1,33] row)
{ looked = Gather(table, ids)  rows = MatMul(a, w)  row = Gemm<transB = 1>(r, g, c) }"""


def rounded(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    kept: np.ndarray[Any, Any] = array.astype(ml_dtypes.bfloat16).astype(np.float32)
    return kept


def run_native(model: ir.Model, feeds: dict[str, Any], compiler: str, folder: Path) -> Any:
    emitted = emit_model(model, isa="avx512", precision="bf16")
    return NativeModel(emitted, build_library(emitted, compiler=compiler, folder=folder)).run(feeds)


def wanted(proto: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


@needs_bf16
def test_dense_convolutions_round_their_factors(compiler: str, library_folder) -> None:
    """Dense ones are the sums of rounded factors, all others those of float32, to float32's ulps.

    Odd numbers of channels, borders, strides, dilations, several samples; the lanes beyond the last
    channel hold what the layer before left there.
    """
    proto = convolutions()
    rng = np.random.default_rng(11)
    feeds = {
        f"x{n}": (rng.normal(size=shape) + 0.2).astype(np.float32)
        for n, (_, shape, _, _) in enumerate(GEOMETRIES)
    }
    got = run_native(ir.from_proto(proto), feeds, compiler, library_folder)
    exact = wanted(proto, feeds)
    for constant in proto.graph.initializer:
        if constant.name.startswith("w"):
            values = rounded(numpy_helper.to_array(constant))
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    short = wanted(proto, {name: rounded(value) for name, value in feeds.items()})
    reduced = set()
    for number in range(len(GEOMETRIES)):
        name = f"y{number}"
        atol = 3e-6 * float(np.abs(exact[name]).max())
        if np.allclose(got[name], short[name], rtol=0, atol=atol):
            reduced.add(number)
        else:
            np.testing.assert_allclose(got[name], exact[name], rtol=0, atol=atol, err_msg=name)
    assert {4, 5, 6} <= reduced  # dense, of blocks
    assert not reduced & {7, 10, 12}  # depthwise, transposed


@needs_bf16
def test_products_and_tables(compiler: str, library_folder) -> None:
    rng = np.random.default_rng(2)
    model = with_constants(PRODUCTS, 3)
    feeds = {
        "ids": rng.integers(-200, 200, (2, 5)),
        "a": rng.normal(size=(2, 5, 37)).astype(np.float32),
        "r": rng.normal(size=(1, 70)).astype(np.float32),
    }
    got = run_native(model, feeds, compiler, library_folder)
    table, w, g, c = (
        model.graph.initializers[n].const_value.numpy() for n in ["table", "w", "g", "c"]
    )
    np.testing.assert_array_equal(got["looked"], rounded(table)[feeds["ids"]])
    rows = rounded(feeds["a"]).astype(np.float64) @ rounded(w)
    np.testing.assert_allclose(got["rows"], rows, rtol=0, atol=2e-5)
    row = rounded(feeds["r"]).astype(np.float64) @ rounded(g).T + c
    np.testing.assert_allclose(got["row"], row, rtol=0, atol=2e-5)
    exact = feeds["a"].astype(np.float64) @ w
    assert 1e-3 < np.abs(got["rows"] - exact).max() < 0.1


@needs_bf16
def test_half_the_weights_and_a_stated_error(tmp_path: Path, compiler: str) -> None:
    sizes, options = [], ("--to", "c", "--shape", "image:1x1x8x8", "--compiler", compiler)
    for precision in ("fp32", "bf16"):
        out, report = tmp_path / precision, tmp_path / f"report-{precision}"
        arguments = ("convert", SAMPLE, "-o", out, *options, "--precision", precision)
        assert main([*map(str, arguments), "--report", str(report), "--quiet"]) == 0
        sizes.append((out / "model.weights").stat().st_size)
        stages = json.loads((report / "report.json").read_text())["stages"]
        line = next(s for s in stages if s["name"] == "verify:native")
        if precision == "bf16":
            assert line["options"]["tolerance"] == 0.05
            assert line["max_abs_error"] > 1e-4
            assert "Instructions: avx512+bf16" in (out / "README.md").read_text()
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--precision", "bf16"), "--to c"),
        (("--to", "c", "--precision", "fp8"), "expected one of fp32, bf16"),
        (("--to", "c", "--precision", "bf16", "--isa", "avx2"), "--isa avx2 has no product"),
        (("--to", "c", "--precision", "bf16", "--target", "aarch64-linux"), "--isa neon has no"),
    ],
)
def test_refusals(tmp_path: Path, capsys, options: tuple[str, ...], told: str) -> None:
    arguments = ("convert", SAMPLE, "-o", tmp_path / "out", "--shape", "image:1x1x8x8", *options)
    assert main([*map(str, arguments), "--quiet"]) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_products_is_refused() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["": 20]>
        t (float[4] x) => (float[4] y) { y = Relu(x) }""")
    with pytest.raises(UsageError, match="no layer"):
        emit_model(model, isa="avx512", precision="bf16")


@pytest.mark.skipif(not best_here().lanes, reason="no vectors here")
def test_float32_is_what_it_was() -> None:
    model = ir.from_proto(convolutions())
    assert "BDOT" not in emit_model(model).source
    assert emit_model(model, precision="fp32").key == emit_model(model).key
