"""The passes that run by default, in their order; each constraint stands on its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from passes.deduplicate_initializers import DeduplicateInitializers
from passes.drop_unused_outputs import DropUnusedOutputs
from passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from passes.eliminate_expand import EliminateExpand
from passes.eliminate_identity import EliminateIdentity
from passes.flatten_concats import FlattenConcats
from passes.fold_affine import FoldAffine
from passes.fold_affine_before import FoldAffineBefore
from passes.fold_batchnorm import FoldBatchNorm
from passes.fold_constants import FoldConstants
from passes.fold_reshapes import FoldReshapes
from passes.fold_shapes import FoldShapes
from passes.fold_zero_products import FoldZeroProducts
from passes.fuse_attention import FuseAttention
from passes.fuse_attention_heads import FuseAttentionHeads
from passes.fuse_gelu import FuseGelu
from passes.fuse_group_norm import FuseGroupNorm
from passes.fuse_hard_sigmoid import FuseHardSigmoid
from passes.fuse_hard_swish import FuseHardSwish
from passes.fuse_mish import FuseMish
from passes.fuse_normalization import FuseInstanceNorm, FuseLayerNorm
from passes.fuse_rms_norm import FuseRMSNorm, PlainRMSNorm
from passes.infer_ranks import InferRanks
from passes.infer_shapes import InferShapes
from passes.inline_if import InlineIf
from passes.join_splits import JoinSplits, SplitJoins
from passes.lift_constants import LiftConstants
from passes.lift_scales import LiftScales
from passes.matmul_to_gemm import MatMulToGemm
from passes.merge_casts import MergeCasts
from passes.merge_clips import MergeClips
from passes.merge_pads import MergePads
from passes.merge_reshapes import MergeReshapes
from passes.merge_scales import MergeScales
from passes.merge_slices import MergeSlices
from passes.merge_transposes import MergeTransposes
from passes.narrow_indices import NarrowIndices
from passes.narrow_loops import NarrowLoops
from passes.pad_into_conv import PadIntoConv
from passes.push_transposes import PushTransposes
from passes.reduce_strength import ReduceStrength
from passes.remove_unused import RemoveUnused
from passes.sequence_to_split import SequenceToSplit
from passes.share_shapes import ShareShapes
from passes.squeeze_single_axes import SqueezeSingleAxes
from passes.transpose_to_reshape import TransposeToReshape
from passes.unflatten_transposes import UnflattenTransposes

if TYPE_CHECKING:
    from passes.base import Pass

PASSES: tuple[Pass, ...] = (
    RemoveUnused(),  # first: nobody else should look at dead nodes
    LiftConstants(),  # before everything that asks for a constant
    InferShapes(),  # before everything that asks for a shape
    FoldConstants(),  # before the fusions, whose weights may be computed
    InferRanks(),  # before InlineIf, which then knows branches that cannot be taken
    FoldShapes(),  # before InlineIf and FoldReshapes: conditions and shapes are computed from them
    ShareShapes(),  # after FoldShapes, which makes numbers of those without names
    InlineIf(),
    SequenceToSplit(),
    FoldReshapes(),
    FoldZeroProducts(),
    EliminateExpand(),
    EliminateIdentity(),  # after folding, which makes shapes and casts provable
    MergeCasts(),
    SqueezeSingleAxes(),  # before MergeReshapes, which merges what becomes of it
    UnflattenTransposes(),  # after FoldReshapes; before the passes that move Transposes
    PushTransposes(),  # before MergeTransposes and TransposeToReshape: it needs both ends
    MergeTransposes(),
    TransposeToReshape(),  # after MergeTransposes, which may leave nothing to reshape
    MergeReshapes(),
    MergeSlices(),
    FlattenConcats(),  # before the two after it, which look at one Concat
    JoinSplits(),
    SplitJoins(),
    MergePads(),  # before PadIntoConv, which looks at one Pad
    FuseHardSwish(),  # before FuseHardSigmoid, which would take a part of it
    FuseHardSigmoid(),
    FuseGelu(),
    FuseMish(),
    FuseLayerNorm(),  # before the folding of its scale and bias into what comes next
    FuseInstanceNorm(),
    FuseGroupNorm(),  # after the normalisations with a scale for each element or channel
    FuseRMSNorm(),
    PlainRMSNorm(),  # after FuseRMSNorm, which takes them all where the opset has the operator
    FuseAttention(),  # before MergeScales, which may move its scale elsewhere
    FuseAttentionHeads(),
    MergeClips(),
    MergeScales(),
    ReduceStrength(),  # after the fusions, which know the plain forms
    PadIntoConv(),  # before the fusions, which then see Conv and its neighbour
    MatMulToGemm(),  # before the fusions into Gemm
    FoldBatchNorm(),
    LiftScales(),  # before FoldAffine, which looks at neighbours
    FoldAffine(),  # after BatchNormalization: Conv, BN, Add folds in this order
    FoldAffineBefore(),  # after the foldings backwards, which keep padding out of it
    EliminateCommonSubexpressions(),  # after the fusions, which refuse shared producers
    NarrowIndices(),  # before DeduplicateInitializers: narrowed ones may be equal
    DeduplicateInitializers(),  # last: new constants may equal old ones
    RemoveUnused(),  # what the fusions left
    DropUnusedOutputs(),  # last: its users are gone
    NarrowLoops(),  # last, for the same reason
)
