"""How often `bench --max-latency-regress` accuses a file of being slower than itself.

    python benchmarks/bench_false_alarms.py [MODEL] [--trials 50] [--limit 5%]

Each trial loads the same file twice and lets the gate judge the second against the first. A twin
shows that the gate is not blind: a model that runs its graph twice must be caught.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from infer_runtime.errors import GateError
from infer_tool import bench
from infer_tool.timing import ratio_of, take_turns

SAMPLE = Path(__file__).parents[1] / "sample_models" / "digits_cnn.onnx"


def alarms(model: str, trials: int, limit: str, runs: int) -> tuple[int, list[float]]:
    """Alarms, and the ratio that each trial measured."""
    count, ratios = 0, []
    for seed in range(trials):
        options = {"engine": ("onnxruntime",), "runs": runs, "seed": seed}
        try:
            report = bench(model, model, max_latency_regress=limit, **options)
        except GateError as error:
            count, report = count + 1, error.evidence
        ratios.append(report.latency[1].ratio.median)
    return count, ratios


def caught(trials: int, slowdown: float, limit: float, runs: int) -> int:
    """How often work that takes `1 + slowdown` times as long is found to be over the limit."""
    block = np.ones((64, 64), np.float32)
    repeats = 400

    def work(times: int) -> None:
        for _ in range(times):
            np.multiply(block, block)

    found = 0
    for _ in range(trials):
        calls = [lambda: work(repeats), lambda: work(int(repeats * (1 + slowdown)))]
        base, slower = take_turns(calls, runs, 5)
        found += ratio_of(slower, base).low - 1 > limit
    return found


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(SAMPLE))
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--limit", default="5%")
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args()
    count, ratios = alarms(args.model, args.trials, args.limit, args.runs)
    strict, _ = alarms(args.model, args.trials, "0%", args.runs)
    document = {
        "trials": args.trials,
        "limit": args.limit,
        "false_alarms": count,
        "false_alarms_at_0%": strict,
        "ratio": {"least": min(ratios), "median": float(np.median(ratios)), "most": max(ratios)},
        "caught_20%_slower_at_5%": caught(args.trials, 0.2, 0.05, args.runs),
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
