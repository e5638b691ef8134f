"""Broken models: thousands of random mutations of valid ones end in a result or in our own error."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from mutations import models, mutant

from infer_runtime import Session
from infer_runtime.errors import InferError

MUTATIONS = 2400
SHARDS = 8
MEMORY = 1 << 27
SECONDS = 20  # for one mutated model: far more than any of them takes


def feeds(session: Session, rng: random.Random) -> dict[str, Any]:
    made = {}
    for info in session.inputs:
        shape = [d if isinstance(d, int) and d < 64 else 2 for d in info.shape or ()]
        dtype = info.dtype if info.dtype.kind not in "VO" else np.dtype(np.float32)
        made[info.name] = np.full(shape, rng.choice([0, 1, 2]), dtype)
    return made


def attempt(model: onnx.ModelProto, path: Path, rng: random.Random) -> None:
    path.write_bytes(model.SerializeToString())
    try:
        session = Session(path, memory_limit=MEMORY)
        session.run(feeds(session, rng))
    except InferError as error:
        text = str(error)
    else:
        text = "a result"
    assert text
    assert "\n" not in text.strip()


def too_long(signum: int, frame: Any) -> None:
    raise TimeoutError


@pytest.mark.parametrize("shard", range(SHARDS))
def test_mutations_end_in_a_result_or_in_an_error_of_ours(shard: int, tmp_path: Path) -> None:
    sources = models()
    signal.signal(signal.SIGALRM, too_long)
    for number in range(shard, MUTATIONS, SHARDS):
        rng = random.Random(number)
        model = mutant(sources, number, rng)
        signal.alarm(SECONDS)
        try:
            attempt(model, tmp_path / "m.onnx", rng)
        except BaseException as error:  # noqa: BLE001 - anything else is what this looks for
            pytest.fail(f"mutation {number}: {type(error).__name__}: {error}")
        finally:
            signal.alarm(0)


def test_the_models_run_as_they_are(tmp_path: Path) -> None:
    for model in models():
        ir.from_proto(model)
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        session = Session(tmp_path / "m.onnx")
        assert session.run(feeds(session, random.Random(0)))
