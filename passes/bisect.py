"""Which rewrites of a rule break the proof? Found by halving, as the rule says where it fired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.errors import LimitError
from passes.base import Outcome, Refusal, RewriteRule, all_nodes, mark_undone
from passes.compare import EQUAL, Difference

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir

    from passes.base import Pass
    from passes.proof import Proof

MAX_TRIALS = 100  # each of them runs the model

Kept = tuple["ir.Model", Difference, Outcome]


@dataclass
class _Search:
    """The rewrites that are good together, the ones that are not, and why."""

    rule: RewriteRule
    source: ir.Model
    proof: Proof
    kept: Kept
    good: set[int] = field(default_factory=set)
    bad: dict[int, str] = field(default_factory=dict)
    trials: int = 0


def keep_good(rule: Pass, source: ir.Model, proof: Proof) -> Kept | None:
    """Apply the rewrites of `rule` that keep the proof to a copy of `source`.

    The others are marked on their nodes, which makes the rule refuse them from now on. None when
    the trials are used up: then the whole pass has to go.
    """
    assert isinstance(rule, RewriteRule)
    search = _Search(rule, source, proof, (source, EQUAL, Outcome(0)))
    numbers = _firing(search)
    _sort_out(search, numbers)
    return None if search.trials > MAX_TRIALS or not search.bad else _marked(search)


def _firing(search: _Search) -> list[int]:
    """Where the rule fires; where it would look when it does not get through."""
    try:
        with np.errstate(all="ignore"):
            return [f.number for f in search.rule.apply(search.source.clone()).fired]
    except (LimitError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - the rewrite that fails is found like any other
        nodes = enumerate(all_nodes(search.source))
        return [number for number, node in nodes if search.rule.match(node)]


def _sort_out(search: _Search, numbers: list[int]) -> None:
    """Take the rewrites all together, or else halve them; every state that is kept is proven."""
    if not numbers or search.trials > MAX_TRIALS:
        return
    search.trials += 1
    reason = _try(search, search.good.union(numbers))
    if reason is None:
        search.good.update(numbers)
    elif len(numbers) == 1:
        search.bad[numbers[0]] = f"the rewrite was undone: {reason}"
    else:
        half = len(numbers) // 2
        _sort_out(search, numbers[:half])
        _sort_out(search, numbers[half:])


def _try(search: _Search, numbers: Collection[int]) -> str | None:
    """Why these rewrites together break the proof; None, and they are kept, when they do not."""
    model = search.source.clone()
    try:
        with np.errstate(all="ignore"):
            outcome = search.rule.apply_to(model, numbers)
        search.proof.check_structure(model)
        search.kept = (model, search.proof.check_outputs(model), outcome)
    except (LimitError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - the reason of a refusal
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _marked(search: _Search) -> Kept:
    """The good rewrites once more, on a copy whose bad nodes are marked."""
    model, refusals = search.source.clone(), []
    nodes = list(all_nodes(model))
    for number, reason in search.bad.items():
        mark_undone(nodes[number], search.rule.name, reason)
        refusals.append(Refusal(nodes[number].name or "?", nodes[number].op_type, reason))
    with np.errstate(all="ignore"):
        outcome = search.rule.apply_to(model, search.good)
    _, error, _ = search.kept
    return model, error, Outcome(outcome.changes, (*outcome.refusals, *refusals), outcome.fired)
