"""The exact pipeline: one flat list, run to a fix-point, every step verified or undone."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_runtime import Session
from infer_runtime.errors import UsageError
from passes.base import EXTERNAL
from passes.config import OptimizeConfig
from passes.deduplicate_initializers import DeduplicateInitializers
from passes.drop_unused_outputs import DropUnusedOutputs
from passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from passes.eliminate_expand import EliminateExpand
from passes.eliminate_identity import EliminateIdentity
from passes.feeds import random_feeds
from passes.flatten_concats import FlattenConcats
from passes.fold_affine import FoldAffine
from passes.fold_affine_before import FoldAffineBefore
from passes.fold_batchnorm import FoldBatchNorm
from passes.fold_constants import FoldConstants
from passes.fold_reshapes import FoldReshapes
from passes.fold_shapes import FoldShapes
from passes.fold_zero_products import FoldZeroProducts
from passes.fuse_gates import FuseMish, FuseSwish
from passes.fuse_gelu import FuseGelu
from passes.fuse_hard_sigmoid import FuseHardSigmoid
from passes.fuse_hard_swish import FuseHardSwish
from passes.fuse_normalization import FuseInstanceNorm, FuseLayerNorm
from passes.infer_ranks import InferRanks
from passes.infer_shapes import InferShapes
from passes.inline_if import InlineIf
from passes.lift_constants import LiftConstants
from passes.matmul_to_gemm import MatMulToGemm
from passes.merge_casts import MergeCasts
from passes.merge_clips import MergeClips
from passes.merge_reshapes import MergeReshapes
from passes.merge_scales import MergeScales
from passes.merge_slices import MergeSlices
from passes.merge_transposes import MergeTransposes
from passes.pad_into_conv import PadIntoConv
from passes.proof import Proof
from passes.push_transposes import PushTransposes
from passes.remove_unused import RemoveUnused
from passes.rounds import Rounds
from passes.sequence_to_split import SequenceToSplit
from passes.transpose_to_reshape import TransposeToReshape
from passes.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnx_ir as ir

    from passes.base import Pass
    from passes.proof import Feeds
    from passes.rounds import PassRecord

PASSES: tuple[Pass, ...] = (
    RemoveUnused(),  # first: nobody else should look at dead nodes
    LiftConstants(),  # before everything that asks for a constant
    InferShapes(),  # before everything that asks for a shape
    FoldConstants(),  # before the fusions, whose weights may be computed
    InferRanks(),  # before InlineIf, which then knows branches that cannot be taken
    FoldShapes(),  # before InlineIf and FoldReshapes: conditions and shapes are computed from them
    InlineIf(),
    SequenceToSplit(),
    FoldReshapes(),
    FoldZeroProducts(),
    EliminateExpand(),
    EliminateIdentity(),  # after folding, which makes shapes and casts provable
    MergeCasts(),
    PushTransposes(),  # before MergeTransposes and TransposeToReshape: it needs both ends
    MergeTransposes(),
    TransposeToReshape(),  # after MergeTransposes, which may leave nothing to reshape
    MergeReshapes(),
    MergeSlices(),
    FlattenConcats(),
    FuseHardSwish(),  # before FuseHardSigmoid, which would take a part of it
    FuseHardSigmoid(),
    FuseGelu(),
    FuseMish(),
    FuseSwish(),
    FuseLayerNorm(),  # before the folding of its scale and bias into what comes next
    FuseInstanceNorm(),
    MergeClips(),
    MergeScales(),
    PadIntoConv(),  # before the fusions, which then see Conv and its neighbour
    MatMulToGemm(),  # before the fusions into Gemm
    FoldBatchNorm(),
    FoldAffine(),  # after BatchNormalization: Conv, BN, Add folds in this order
    FoldAffineBefore(),  # after the foldings backwards, which keep padding out of it
    EliminateCommonSubexpressions(),  # after the fusions, which refuse shared producers
    DeduplicateInitializers(),  # last: new constants may equal old ones
    RemoveUnused(),  # what the fusions left
    DropUnusedOutputs(),  # last: its users are gone
)
MAX_ROUNDS = 10


@dataclass(frozen=True)
class Optimized:
    """The optimised model and the ledger lines of the passes that ran."""

    model: ir.Model
    records: tuple[PassRecord, ...]


def optimize(
    model: ir.Model,
    config: OptimizeConfig | None = None,
    *,
    feeds: Sequence[Feeds] | None = None,
    progress: Callable[[str], None] | None = None,
    passes: Sequence[Pass] = PASSES,
) -> Optimized:
    """Run the passes of the level on a copy until none of them finds anything.

    After each pass the structure is verified, after each round the outputs on `feeds` (seeded
    ones by default) are compared with the source's. What breaks either is undone and reported as
    a refusal: single rewrites of a rule, or a whole pass, which is left out from then on.

    Raises:
        UsageError: an unknown pass name.
        ModelError: the model is not valid to begin with.

    """
    config = config or OptimizeConfig()
    chosen = _choose(config, passes)
    verify(model)
    if not chosen:
        return Optimized(model.clone(), ())
    feeds = feeds or [random_feeds(Session(model).inputs, config.seed)]
    own = [p for p in chosen if p.level < EXTERNAL]
    with _collecting_rarely():
        rounds = Rounds(model, Proof.of(model, feeds, config.tolerance), progress)
        _to_fix_point(rounds, own)
        for item in chosen:
            if item.level >= EXTERNAL and rounds.run([item]):
                _to_fix_point(rounds, own)
    return Optimized(rounds.model, tuple(rounds.records.values()))


def _choose(config: OptimizeConfig, passes: Sequence[Pass]) -> list[Pass]:
    """Names that are asked for run whatever the level; names with a minus never do."""
    names = [part.strip() for part in config.passes.split(",") if part.strip()]
    known = {p.name for p in passes}
    for name in names:
        if name.removeprefix("-") not in known:
            raise UsageError(f"--passes: no pass {name!r}; there are {', '.join(sorted(known))}")
    left_out = {name[1:] for name in names if name.startswith("-")}
    asked = {name for name in names if not name.startswith("-")}
    asked = asked or {p.name for p in passes if p.level <= config.level}
    return [p for p in passes if p.name in asked - left_out]


def _to_fix_point(rounds: Rounds, passes: Sequence[Pass]) -> None:
    for _ in range(MAX_ROUNDS):
        if not rounds.run(passes):
            break
        gc.collect()  # graphs are cycles: the copies of this round hold its old weights


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    """No collector while a graph of many small objects is built: it takes half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
