"""Random mutations of valid models through the commands: a documented status, in time, in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MUTANTS = int(os.environ.get("INFERTOOL_MUTANTS", "24"))  # a full trial takes 1000
# Without a type, functions of another opset, too few inputs, bytes that are no text: each was an
# error of ours. The last one ends the process inside ONNX Runtime: a GRU of no rows.
FOUND = (213, 397, 541, 677, 859, 895)
CRASH = "error: a library crashed (SIG"
CHILD = Path(__file__).with_name("mutants_child.py")
MOST_BYTES = 2 << 30
MOST_SECONDS = 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and counts in kB")
def test_mutants(tmp_path) -> None:
    repository = str(Path(__file__).parents[2])
    numbers = sorted({*range(MUTANTS), *FOUND})
    run = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path), *map(str, numbers)], text=True, check=False,
        capture_output=True, env=os.environ | {"PYTHONPATH": repository, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, (rows[-1:], run.stderr[-2000:])
    assert len(rows) == 3 * len(numbers)
    for row in rows:
        crashed = row["status"] == 7 and row["errors"][0].startswith(CRASH)
        assert row["status"] in (0, 1, 2, 3, 4, 5) or crashed, row
        assert not row["traceback"], row
        assert len(row["errors"]) == (row["status"] != 0), row
        assert row["json"], row
        assert row["seconds"] < MOST_SECONDS, row
        assert row["peak"] < MOST_BYTES, row
        written = ["o.onnx"] if row["command"] == "optimize" and row["status"] == 0 else []
        assert row["left"] == written, row
    seen = {row["status"] for row in rows}
    assert {0, 3} <= seen, "neither all broken nor all whole"
