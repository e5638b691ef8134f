"""The arena of emitted code: no two tensors that live at once overlap, little is wasted."""

from __future__ import annotations

import numpy as np

from infer_native.memory import squeezed
from passes.memory_plan import Buffer, greedy_by_size, largest_live_set


def test_a_search_finds_smaller_arenas_and_never_overlaps() -> None:
    rng, better = np.random.default_rng(0), 0
    for _ in range(5):
        firsts = rng.integers(0, 60, 70)
        buffers = [
            Buffer((str(i),), int(size), int(first), int(first + length))
            for i, (size, first, length) in enumerate(
                zip(rng.integers(1, 4000, 70), firsts, rng.integers(1, 12, 70), strict=True)
            )
        ]
        plan, bound = greedy_by_size(buffers), largest_live_set(buffers)[0]
        offsets, size = squeezed(buffers, plan, bound)
        assert bound <= size <= plan.arena
        better += size < plan.arena
        assert squeezed(buffers, plan, bound) == (offsets, size)
        for i, a in enumerate(buffers):
            assert offsets[i] % 64 == 0
            assert offsets[i] + a.padded <= size
            for j, b in enumerate(buffers[:i]):
                apart = offsets[i] >= offsets[j] + b.padded or offsets[j] >= offsets[i] + a.padded
                assert apart or not a.meets(b)
    assert better >= 2
