"""Recurrent layers RNN, GRU and LSTM, with the gates in the order of the ONNX specification."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.arrays import Array, as_type, like, namespace, number, widened
from infer_runtime.ops import activation
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Function = Callable[[Array], Array]
    States = tuple[Array, ...]
    # (projected inputs of one time step, states) -> new states, the first one is the output
    Step = Callable[[Array, States], States]

# Name -> the function, and which of alpha and beta it takes.
_FUNCTIONS: dict[str, tuple[Callable[..., Array], tuple[str, ...]]] = {
    "elu": (activation.Elu, ("alpha",)),
    "hardsigmoid": (activation.HardSigmoid, ("alpha", "beta")),
    "leakyrelu": (activation.LeakyRelu, ("alpha",)),
    "relu": (activation.Relu, ()),
    "sigmoid": (activation.Sigmoid, ()),
    "softplus": (activation.Softplus, ()),
    "softsign": (activation.Softsign, ()),
    "tanh": (lambda x: namespace(x).tanh(x), ()),
    "thresholdedrelu": (activation.ThresholdedRelu, ("alpha",)),
}


@op("RNN", since=7, library="any")
def RNN(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    hidden_size: int | None = None,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = (),
    clip: float | None = None,
    direction: str = "forward",
    layout: int = 0,
) -> tuple[Array, ...]:
    """h = f(W x + R h + b)."""
    del hidden_size  # R says it
    kinds = _functions(activations, ("Tanh",), len(W), activation_alpha, activation_beta)

    recurrent = [widened(r).T for r in R]

    def step(d: int, gates: Array, states: States) -> States:
        (f,) = kinds[d]
        return (f(_clipped(gates + states[0] @ recurrent[d], clip)),)

    return _run(X, W, R, B, sequence_lens, (initial_h,), direction, layout, step)


@op("GRU", since=7, library="any")
def GRU(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    hidden_size: int | None = None,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = (),
    clip: float | None = None,
    direction: str = "forward",
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Array, ...]:
    """Gates z, r, h; with linear_before_reset the reset gate follows the recurrent product."""
    del hidden_size
    kinds = _functions(activations, ("Sigmoid", "Tanh"), len(W), activation_alpha, activation_beta)
    n = R.shape[2]
    recurrent = [(widened(r[: 2 * n]).T, widened(r[2 * n :]).T) for r in R]
    biases = [0] * len(W) if B is None else [widened(b[5 * n :]) for b in B]

    def step(d: int, gates: Array, states: States) -> States:
        f, g = kinds[d]
        (h,), (r_zr, r_h), bias = states, recurrent[d], biases[d]
        both = f(_clipped(gates[:, : 2 * n] + h @ r_zr, clip))
        z, r = both[:, :n], both[:, n:]
        late = r * (h @ r_h + bias) if linear_before_reset else (r * h) @ r_h + bias
        return ((1 - z) * g(_clipped(gates[:, 2 * n :] + late, clip)) + z * h,)

    return _run(X, W, R, B, sequence_lens, (initial_h,), direction, layout, step, 2 * n)


@op("LSTM", since=7, library="any")
def LSTM(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    P: Array | None = None,
    *,
    hidden_size: int | None = None,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = (),
    clip: float | None = None,
    direction: str = "forward",
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Array, ...]:
    """Gates i, o, f, c; P are peepholes from the cell to the gates i, o, f."""
    del hidden_size
    names = ("Sigmoid", "Tanh", "Tanh")
    kinds = _functions(activations, names, len(W), activation_alpha, activation_beta)
    n = R.shape[2]
    recurrent = [widened(r).T for r in R]
    peepholes = None if P is None else widened(P).reshape(len(W), 3, n)

    def step(d: int, gates: Array, states: States) -> States:
        f, g, h = kinds[d]
        hidden, cell = states
        to_i, to_o, to_f = (0, 0, 0) if peepholes is None else peepholes[d]
        i, o, forget, c = _parts(gates + hidden @ recurrent[d], 4)
        i = f(_clipped(i + to_i * cell, clip))
        forget = 1 - i if input_forget else f(_clipped(forget + to_f * cell, clip))
        cell = forget * cell + i * g(_clipped(c, clip))
        return f(_clipped(o + to_o * cell, clip)) * h(cell), cell

    initial = (initial_h, initial_c)
    return _run(X, W, R, B, sequence_lens, initial, direction, layout, step)


def _run(
    X: Array, W: Array, R: Array, B: Array | None, lengths: Array | None,
    initial: tuple[Array | None, ...], direction: str, layout: int,
    step: Callable[[int, Array, States], States], summed_bias: int | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    """All directions over all time steps -> Y, then the last value of each state.

    `summed_bias`: how many entries of the recurrent bias are added here (all of them for None);
    the others are the business of `step`.
    """
    x = widened(X).swapaxes(0, 1) if layout else widened(X)
    hidden = R.shape[2]
    backward = {"forward": (False,), "reverse": (True,)}.get(direction, (False, True))
    sequences, last = [], []
    for d, reverse in enumerate(backward):
        gates = x @ widened(W[d]).T
        if B is not None:
            gates = gates + _input_bias(widened(B[d]), summed_bias)
        states = tuple(_initial(s, d, x, hidden, layout) for s in initial)
        outputs, states = _walk(gates, states, lengths, partial(step, d), reverse)
        sequences.append(outputs)
        last.append(states)
    xp = namespace(X)
    y = _stacked(sequences, 1)
    finals = [_stacked(group, 0) for group in zip(*last, strict=True)]
    if layout:
        y, finals = xp.permute_dims(y, (2, 0, 1, 3)), [s.swapaxes(0, 1) for s in finals]
    return tuple(as_type(v, X.dtype) for v in (y, *finals))


def _input_bias(bias: Array, summed: int | None) -> Array:
    """The bias of the inputs, and those entries of the recurrent one that only add to it."""
    xp, n = namespace(bias), len(bias) // 2
    first, second = bias[:n], bias[n:]
    if summed is None:
        return first + second
    return xp.concat([first[:summed] + second[:summed], first[summed:]])


def _parts(x: Array, count: int) -> list[Array]:
    """Equal parts of the second axis."""
    n = x.shape[1] // count
    return [x[:, i * n : (i + 1) * n] for i in range(count)]


def _initial(state: Array | None, d: int, x: Array, hidden: int, layout: int) -> Array:
    if state is None:
        return as_type(like(np.zeros((x.shape[1], hidden)), x), x.dtype)
    return widened(state[:, d] if layout else state[d])


def _walk(
    gates: Array, states: States, lengths: Array | None, step: Step, reverse: bool
) -> tuple[Array, States]:
    """One direction; a sequence that has ended keeps its state and yields zeros."""
    xp, outputs = namespace(gates), [states[0]] * len(gates)
    times = range(len(gates))
    for t in reversed(times) if reverse else times:
        fresh = step(gates[t], states)
        if lengths is None:
            outputs[t], states = fresh[0], fresh
            continue
        alive = (lengths > t)[:, None]
        outputs[t] = xp.where(alive, fresh[0], number(0, fresh[0]))
        states = tuple(xp.where(alive, new, old) for new, old in zip(fresh, states, strict=True))
    if not outputs:
        return gates[:, :, : states[0].shape[1]], states
    return _stacked(outputs, 0), states


def _stacked(parts: Sequence[Array], axis: int) -> Array:
    """The parts along a new axis; a single one, which is common, without a copy."""
    if len(parts) > 1:
        stacked: Array = namespace(*parts).stack(parts, axis=axis)
        return stacked
    return parts[0][:, None] if axis else parts[0][None]


def _clipped(x: Array, limit: float | None) -> Array:
    return x if limit is None else namespace(x).clip(x, -limit, limit)


def _functions(
    names: Sequence[str], defaults: tuple[str, ...], directions: int,
    alphas: Sequence[float], betas: Sequence[float],
) -> list[list[Function]]:  # fmt: skip
    """The activations of each direction; alphas and betas go to those that take one, in order."""
    return _found_functions(
        tuple(names or defaults * directions), len(defaults), tuple(alphas), tuple(betas)
    )


@lru_cache(maxsize=256)
def _found_functions(
    names: tuple[str, ...], size: int, alphas: tuple[float, ...], betas: tuple[float, ...]
) -> list[list[Function]]:
    given = {"alpha": list(alphas), "beta": list(betas)}
    found = [_function(name, given) for name in names]
    return [found[i : i + size] for i in range(0, len(found), size)]


def _function(name: str, given: dict[str, list[float]]) -> Function:
    if name.lower() == "affine":
        alpha, beta = given["alpha"].pop(0), given["beta"].pop(0)
        return lambda x: as_type(alpha * x + beta, x.dtype)
    if name.lower() not in _FUNCTIONS:
        raise ValueError(f"unknown activation function {name!r}")
    function, parameters = _FUNCTIONS[name.lower()]
    return partial(function, **{p: given[p].pop(0) for p in parameters if given[p]})
