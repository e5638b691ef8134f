"""quantize --target-cpu: a warning where products saturate, and what avoids it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session


def _quantised(cli: Any, samples: Any, path: Any, *extra: str) -> dict[str, Any]:
    outcome = cli(
        "quantize", samples / "digits_cnn.onnx", "-o", path, "--data", samples / "digits.npz",
        "--runs", "0", "--target-cpu", "avx2", "--json", *extra,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    return json.loads(outcome.out)


def test_saturation_is_said_and_the_reduced_range_avoids_it(cli, samples, tmp_path) -> None:
    full, reduced = tmp_path / "full.onnx", tmp_path / "reduced.onnx"
    report = _quantised(cli, samples, full)
    (said,) = [w for w in report["warnings"] if "saturate" in w]
    assert "--reduce-range" in said
    report = _quantised(cli, samples, reduced, "--reduce-range")
    assert not [w for w in report["warnings"] if "saturate" in w]
    feeds = {"image": np.load(samples / "digits.npz")["image"][:50]}
    exact, target = (Session(reduced, target_cpu=t).run(feeds)["logits"] for t in (None, "avx2"))
    np.testing.assert_array_equal(exact, target)
    exact, target = (Session(full, target_cpu=t).run(feeds)["logits"] for t in (None, "avx2"))
    assert not np.array_equal(exact, target)
    levels = [v.const_value.numpy() for v in ir.load(reduced).graph.initializers.values()]
    largest = max(np.abs(x.astype(int)).max() for x in levels if x.dtype == np.int8 and x.size > 1)
    assert 60 <= largest <= 64
    assert report["accuracy"]["sqnr_db"] > 30


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        (["--target-cpu", "neon"], "avx2"),
        (["--reduce-range", "--scheme", "int4-weight"], "--reduce-range"),
        (["--reduce-range", "--scheme", "auto", "--max-drop", "1%"], "--reduce-range"),
    ],
)
def test_what_makes_no_sense_is_refused(cli, samples, tmp_path, extra, text) -> None:
    path = tmp_path / "out.onnx"
    outcome = cli(
        "quantize",
        samples / "digits_cnn.onnx",
        "-o",
        path,
        "--data",
        samples / "digits.npz",
        *extra,
    )
    assert outcome.status == 2
    assert text in outcome.err
    assert not path.exists()
