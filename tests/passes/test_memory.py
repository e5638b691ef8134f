"""Lifetimes by hand; plans against brute force and against the rule that no live ones overlap."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_runtime import Session
from infer_runtime.errors import UsageError
from passes.memory import lifetimes
from passes.memory_plan import ALIGNMENT, Buffer, best_plan, greedy_by_size, largest_live_set
from passes.sizes import input_sizes, value_bytes

CHAIN = """t (float[N,4] x, float[4,8] w, int64[1] s) => (float[M] y)
{ a = MatMul(x, w)  b = Relu(a)  c = Reshape(b, s)  d = Identity(c)  e = Exp(d)  y = Add(e, d) }"""


def _lives(make, text: str, shapes=None, **constants):
    model = make(text, **constants)
    sizes = input_sizes(Session(model).inputs, shapes or {})
    return lifetimes(model.graph, value_bytes(model, sizes))


def test_lifetimes_by_hand(make) -> None:
    """Views share a buffer, which lives as long as the last of them; weights have none."""
    constants = {"w": np.ones((4, 8), np.float32), "s": np.array([-1])}
    found = _lives(make, CHAIN, {"x": (3, 4)}, **constants)
    assert not found.unknown
    assert {b.values: (b.size, b.first, b.last) for b in found.buffers} == {
        ("x",): (48, 0, 0),
        ("a",): (96, 0, 1),
        ("b", "c", "d"): (96, 1, 5),
        ("e",): (96, 4, 5),
        ("y",): (96, 5, 5),
    }
    assert largest_live_set(found.buffers) == (3 * 128, 5)


def test_lifetimes_of_outputs_branches_and_data(make) -> None:
    """An output lives to the end, a subgraph is memory of its node, a size of data is measured."""
    text = """t (float[8] x, bool c) => (float[8] early, float[8] y, int64[1,K] where)
    { early = Relu(x)  k = Exp(x)  where = NonZero(x)
      y = If(c) <then_branch = a () => (float[8] p) { q = Neg(k)  p = Exp(q) },
                 else_branch = b () => (float[8] r) { r = Neg(x) }> }"""
    found = _lives(make, text)
    lives = {b.values[0]: (b.size, b.first, b.last) for b in found.buffers}
    assert lives["early"] == (32, 0, 3)
    assert lives["k"] == (32, 1, 3), "read inside the branch"
    assert lives["x"] == (32, 0, 3)
    assert lives["where"] == (8 * 8, 2, 3)
    assert lives["subgraphs of n3"] == (2 * ALIGNMENT, 3, 3)


def test_a_view_of_a_weight_needs_no_memory(make) -> None:
    text = "t (float[4] w, float[4] x) => (float[4] y) { a = Identity(w)  y = Add(a, x) }"
    found = _lives(make, text, w=np.ones(4, np.float32))
    assert [b.values for b in found.buffers] == [("x",), ("y",)]


def test_open_sizes_are_refused_with_the_fix(make) -> None:
    model = make("t (float[N,4] x, float[N] z) => (float[N,4] y) { y = Relu(x)  q = Neg(z) }")
    inputs = Session(model).inputs
    with pytest.raises(UsageError, match="'x' has no fixed size, it is Nx4; give one with --shape"):
        input_sizes(inputs, {})
    with pytest.raises(UsageError, match="--shape w: the inputs are x, z"):
        input_sizes(inputs, {"w": (1,)})
    with pytest.raises(UsageError, match="does not fit"):
        input_sizes(inputs, {"x": (1, 5)})
    assert input_sizes(inputs, {"x": (3, 4)}) == {"x": (3, 4), "z": (3,)}


BUFFERS = st.builds(
    lambda name, size, first, length: Buffer((str(name),), size, first, first + length),
    st.integers(0, 99), st.integers(1, 400), st.integers(0, 9), st.integers(0, 6),
)  # fmt: skip


def _check(buffers, plan) -> None:
    places = list(zip(buffers, plan.offsets, strict=True))
    for (a, at), (b, bt) in combinations(places, 2):
        if a.meets(b):
            assert at + a.size <= bt or bt + b.size <= at
    assert all(offset >= 0 and offset % ALIGNMENT == 0 for _, offset in places)
    assert plan.arena == max((o + b.padded for b, o in places), default=0)


@settings(max_examples=300, deadline=None)
@given(st.lists(BUFFERS, max_size=14))
def test_no_two_live_buffers_overlap(buffers) -> None:
    greedy, best = greedy_by_size(buffers), best_plan(buffers, 2000)
    bound, _ = largest_live_set(buffers)
    by_hand = [sum(b.padded for b in buffers if b.first <= t <= b.last) for t in range(17)]
    assert bound == max(by_hand)
    _check(buffers, greedy)
    _check(buffers, best)
    assert bound <= best.arena <= greedy.arena
    assert not greedy.optimal or greedy.arena == best.arena


def _smallest_arena(buffers) -> int:
    """All orders, each buffer at every place where it may lie lowest: the definition, slowly."""
    found = sum(b.padded for b in buffers)
    for order in permutations(buffers):
        tops, arena = [], 0
        for buffer in order:
            met = [(o, o + b.padded) for b, o in tops if b.meets(buffer)]
            fits = [0, *(end for _, end in met)]
            offset = min(f for f in fits if all(f + buffer.padded <= s or e <= f for s, e in met))
            tops.append((buffer, offset))
            arena = max(arena, offset + buffer.padded)
        found = min(found, arena)
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(BUFFERS, min_size=1, max_size=6))
def test_the_search_finds_the_optimum(buffers) -> None:
    plan = best_plan(buffers)
    assert plan.optimal
    assert plan.arena == _smallest_arena(buffers)


def test_greedy_is_not_always_optimal() -> None:
    """The largest first leaves a gap that nothing fills."""
    spans = [(1, 2, 2), (2, 1, 3), (3, 3, 4), (4, 4, 6), (3, 2, 2)]
    buffers = [Buffer((str(s),), s[0] * ALIGNMENT, s[1], s[2]) for s in spans]
    assert largest_live_set(buffers) == (7 * ALIGNMENT, 4)
    assert greedy_by_size(buffers).arena == 9 * ALIGNMENT
    assert best_plan(buffers).arena == 7 * ALIGNMENT


def test_many_buffers_are_planned(make) -> None:
    generator = np.random.default_rng(0)
    sizes, lengths = generator.integers(1, 10**6, 400), generator.integers(1, 5, 400)
    buffers = [
        Buffer((str(i),), int(s), i, i + int(n))
        for i, (s, n) in enumerate(zip(sizes, lengths, strict=True))
    ]
    plan = best_plan(buffers)
    _check(buffers, plan)
    assert largest_live_set(buffers)[0] <= plan.arena
