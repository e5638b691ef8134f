"""`bench`: the statistics against known distributions, gates that fail and pass, baselines."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from infer_tool.bench_matrix import sweep
from infer_tool.report.model import Latency
from infer_tool.timing import CONFIDENCE, interval_rank, ratio_of, take_turns

QUICK = ("--runs", "12", "--warmup", "1", "--engine", "onnxruntime")


def _document(outcome, status: int = 0):
    assert outcome.status == status, outcome.err
    return json.loads(outcome.out)


def test_a_row_has_everything(cli, tiny) -> None:
    (row,) = _document(cli("bench", tiny, *QUICK, "--memory", "--json"))["latency"]
    order = [row[k] for k in ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")]
    assert order == sorted(order)
    assert row["throughput"] == pytest.approx(1e3 / row["p50_ms"])
    assert row["load_ms"] > 0
    assert 0 < row["peak_memory_bytes"] < 500e6
    quantiles = row["quantiles_ms"]
    assert quantiles == sorted(quantiles)
    assert quantiles[20] == pytest.approx(row["p50_ms"])
    assert quantiles[-1] == row["max_ms"]


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    """Log-normal times with a heavy tail and slow phases; the true ratio is 1.1."""
    generator = np.random.default_rng(3)
    missed = 0
    for _ in range(2000):
        phase = np.repeat(generator.lognormal(0, 0.5, 10), 5)
        base, other = (
            phase * generator.lognormal(0, 0.1, 50) * (1 + 9 * (generator.random(50) < 0.05))
            for _ in range(2)
        )
        found = ratio_of(1.1 * other, base)
        missed += not found.low <= 1.1 <= found.high
    assert missed <= 2000 * (1 - CONFIDENCE) * 1.6
    assert math.isinf(ratio_of(np.ones(5), np.ones(5)).high), "five runs say nothing"


def test_interval_rank_against_the_binomial_table() -> None:
    def tail(n: int, k: int) -> float:
        return sum(math.comb(n, i) for i in range(k + 1)) / 2**n

    for n in (8, 9, 20, 50, 200):
        rank = interval_rank(n)
        assert rank is not None
        assert tail(n, rank) <= 0.005 < tail(n, rank + 1)
    assert interval_rank(7) is None


def test_turns_change_their_order() -> None:
    seen: list[str] = []
    take_turns([lambda: seen.append("a"), lambda: seen.append("b")], 2, 1)
    assert "".join(seen) == "abbaab"


def test_a_slower_model_misses_the_gate(cli, tiny, samples) -> None:
    """A classifier of digits against one of four features: far more than 5 %."""
    arguments = (tiny, samples / "digits_cnn.onnx", "--runs", "20", "--engine", "onnxruntime")
    outcome = cli("bench", *arguments, "--max-latency-regress", "5%", "--json")
    document = _document(outcome, 1)
    assert document["passed"] is False
    assert document["gates"][0]["value"] > 0.05
    assert "max-latency-regress" in outcome.err
    reverse = (samples / "digits_cnn.onnx", tiny, "--runs", "20", "--engine", "onnxruntime")
    assert cli("bench", *reverse, "--max-latency-regress", "5%").status == 0


def test_baseline(cli, tiny, tmp_path) -> None:
    stored = tmp_path / "base.json"
    options = (*QUICK, "--baseline", stored)
    outcome = cli("bench", tiny, *options)
    assert outcome.status == 2
    assert "--update-baseline" in outcome.err
    assert cli("bench", tiny, *options, "--update-baseline").status == 0
    document = json.loads(stored.read_text())
    (row,) = document["rows"].values()
    row["low"], row["high"] = row["low"] / 1000, row["high"] / 1000
    stored.write_text(json.dumps(document))
    assert cli("bench", tiny, *options, "--max-latency-regress", "5%").status == 1
    row["high"] *= 1e6
    stored.write_text(json.dumps(document))
    assert cli("bench", tiny, *options, "--max-latency-regress", "5%").status == 0
    outcome = cli("bench", tiny, *options, "--max-latency-regress", "5%", "--batch", "3")
    assert outcome.status == 2
    assert "no row" in outcome.err
    stored.write_text("{}")
    assert "not a baseline" in cli("bench", tiny, *options).err


def test_matrix_has_every_combination_once(cli, tiny) -> None:
    axes = "engine=onnxruntime,reference threads=1,2 batch=1,4"
    rows = _document(cli("bench", tiny, "--runs", "3", "--matrix", axes, "--json"))["latency"]
    cells = [(r["engine"], r["threads"], r["batch"]) for r in rows]
    assert len(cells) == len(set(cells)) == 8
    for bad, word in (("cores=1", "cores=1"), ("threads=x", "threads=x"), ("", "batch=1,8")):
        outcome = cli("bench", tiny, "--matrix", bad)
        assert outcome.status == 2
        assert word in outcome.err


def test_profile_names_the_nodes(cli, tiny) -> None:
    for engine in ("reference", "onnxruntime"):
        options = ("--engine", engine, "--runs", "2", "--profile", "--json")
        (table,) = _document(cli("bench", tiny, *options))["details"].values()
        assert [row[1] for row in table["rows"]][:1] in (["Gemm"], ["FusedGemm"])
        assert all(row[2] >= 0 for row in table["rows"])
        assert sum(float(row[3].split()[0]) for row in table["rows"]) == pytest.approx(100, abs=1)


def _row(batch: int, p90: float) -> Latency:
    return Latency("m", "e", 1, batch, p90, p90, p90, 1)


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 37, 64])
def test_sweep_finds_the_largest_batch(most) -> None:
    rows = sweep(lambda batch: _row(batch, float(batch)), float(most), 64)
    fitting = [r.batch for r in rows if r.p90_ms <= most]
    assert max(fitting) == most
    assert len(rows) <= 2 * math.log2(most + 1) + 3
    assert sweep(lambda batch: _row(batch, 2.0), 1.0, 64)[0].batch == 1
    assert sweep(lambda batch: None, 1.0, 64) == []


def test_best_batch(cli, tiny, samples) -> None:
    options = ("--engine", "onnxruntime", "--runs", "3", "--json")
    document = _document(cli("bench", tiny, *options, "--best-batch", "2ms"))
    rows = document["details"]["Batches"]["rows"]
    assert sum(row[-1] == "best" for row in rows) == 1
    assert cli("bench", tiny, *options, "--best-batch", "1us").status == 1
    assert cli("bench", tiny, *options, "--best-batch", "soon").status == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-latency-regress", "5%"], "--baseline"),
        (["--update-baseline"], "--baseline"),
        (["--engine", "litert"], "litert"),
        (["--engine", "tensorrt"], "tensorrt"),
        (["--max-latency-regress", "much", "--baseline", "x.json"], "much"),
    ],
)
def test_wrong_options(cli, tiny, options, words) -> None:
    outcome = cli("bench", tiny, *options)
    assert outcome.status == 2
    assert words in outcome.err
    assert outcome.out == ""


def test_a_program_of_torch_beside_its_conversion(cli, samples) -> None:
    options = ("--engine", "torch", "--engine", "onnxruntime", "--runs", "2", "--json")
    rows = _document(cli("bench", samples / "digits_mlp.pt2", *options))["latency"]
    assert [r["engine"] for r in rows] == ["torch", "onnxruntime"]
