"""Recurrent layers against ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES, BATCH, WIDTH, H = 5, 3, 4, 6
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STATES = {"RNN": 1, "GRU": 1, "LSTM": 2}


def _inputs(op: str, directions: int, rng: Any) -> list[np.ndarray]:
    shapes = [
        (TIMES, BATCH, WIDTH),
        (directions, GATES[op] * H, WIDTH),
        (directions, GATES[op] * H, H),
        (directions, 2 * GATES[op] * H),
    ]
    return [(rng.normal(size=s) * 0.6).astype(np.float32) for s in shapes]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_directions_lengths_and_initial_states(
    agrees: Callable[..., None], rng: Any, op: str, direction: str
) -> None:
    d = 2 if direction == "bidirectional" else 1
    inputs = _inputs(op, d, rng)
    states = [rng.normal(size=(d, BATCH, H)).astype(np.float32) for _ in range(STATES[op])]
    options = {"hidden_size": H, "direction": direction, "outputs": 1 + STATES[op]}
    agrees(op, *inputs, **options)
    agrees(op, *inputs, np.array([5, 2, 3], np.int32), *states, **options)


def test_gru_linear_before_reset(agrees: Callable[..., None], rng: Any) -> None:
    agrees("GRU", *_inputs("GRU", 1, rng), hidden_size=H, outputs=2, linear_before_reset=1)


def test_lstm_peepholes_and_clip(agrees: Callable[..., None], rng: Any) -> None:
    inputs = _inputs("LSTM", 1, rng)
    peepholes = rng.normal(size=(1, 3 * H)).astype(np.float32)
    agrees("LSTM", *inputs, None, None, None, peepholes, hidden_size=H, outputs=3)
    agrees("LSTM", *inputs, hidden_size=H, outputs=3, clip=0.3)


def test_other_activations(agrees: Callable[..., None], rng: Any) -> None:
    names = ["HardSigmoid", "Relu", "LeakyRelu"]
    agrees(
        "LSTM", *_inputs("LSTM", 1, rng), hidden_size=H, outputs=3, activations=names,
        activation_alpha=[0.3, 0.05], activation_beta=[0.4],
    )  # fmt: skip
