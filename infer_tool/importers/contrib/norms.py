"""Normalisations over the last axis: with a residual sum, without a mean, with embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.contrib.builder import Builder, Unexpressible

if TYPE_CHECKING:
    import onnx_ir as ir

    Outputs = list[ir.Value | None]

EPSILON = 1e-5
EPSILON_OF_BERT = 1e-12  # the default of the operators with a residual or embeddings
FLOAT = 1


def layer_norm(b: Builder, _: ir.Node) -> Outputs:
    """The operator of the standard, before the standard had it."""
    values = [b.required(0), b.required(1), b.argument(2)]
    wanted = {k: a.value for k, a in b.node.attributes.items() if k in ("axis", "epsilon")}
    first = b.op("LayerNormalization", *values, outputs=len(b.node.outputs), **wanted)
    node = first.producer()
    assert node is not None
    return list(node.outputs)


def simplified(b: Builder, _: ir.Node) -> Outputs:
    """X / sqrt(mean(x^2) + epsilon) * scale, from `axis` on."""
    if b.attribute("axis", -1) != -1 or b.wants(1):
        raise Unexpressible
    return [rms(b, b.required(0), b.required(1), b.attribute("epsilon", EPSILON))]


def rms(b: Builder, x: ir.Value, scale: ir.Value, epsilon: float) -> ir.Value:
    """In float32, whatever the type of x is."""
    wide = b.op("Cast", x, to=FLOAT)
    mean = b.op("ReduceMean", b.op("Mul", wide, wide), b.ints(-1))
    root = b.op("Sqrt", b.op("Add", mean, b.const(_single(epsilon))))
    normal = b.op("Div", wide, root)
    return b.op("Mul", b.op("CastLike", normal, x), scale)


def skip_layer_norm(b: Builder, _: ir.Node) -> Outputs:
    """LayerNormalization(x + skip + bias); the fourth output is that sum."""
    total = _sum(b, 4)
    epsilon = b.attribute("epsilon", EPSILON_OF_BERT)
    y = b.op("LayerNormalization", total, b.required(2), b.argument(3), epsilon=epsilon, axis=-1)
    return [y, None, None, total]


def skip_simplified(b: Builder, _: ir.Node) -> Outputs:
    """The same without a mean."""
    total = _sum(b, 3)
    y = rms(b, total, b.required(2), b.attribute("epsilon", EPSILON_OF_BERT))
    return [y, None, None, total]


def _sum(b: Builder, bias_at: int) -> ir.Value:
    total = b.op("Add", b.required(0), b.required(1))
    bias = b.argument(bias_at)
    return total if bias is None else b.op("Add", total, bias)


def embed_layer_norm(b: Builder, _: ir.Node) -> Outputs:
    """Word, position and segment rows, summed and normalised; and how long each sentence is."""
    ids, segments = b.required(0), b.argument(1)
    words = b.op("Gather", b.required(2), ids)
    total = b.op("Add", words, _positions(b, ids))
    if segments is not None:
        total = b.op("Add", total, b.op("Gather", b.required(4), segments))
    epsilon = b.attribute("epsilon", EPSILON_OF_BERT)
    y = b.op("LayerNormalization", total, b.required(5), b.argument(6), epsilon=epsilon, axis=-1)
    return [y, _lengths(b) if b.wants(1) else None, total]


def _positions(b: Builder, ids: ir.Value) -> ir.Value:
    given = b.argument(8)
    if given is not None:
        return b.op("Gather", b.required(3), given)
    length = b.op("Shape", ids, start=1, end=2)
    return b.op("Slice", b.required(3), b.ints(0), length, b.ints(0))


def _lengths(b: Builder) -> ir.Value:
    """How many elements of the mask are 1: it is padded on the right."""
    mask = b.argument(7)
    if mask is None or b.attribute("mask_index_type", 0) != 0:
        raise Unexpressible
    return b.op("ReduceSum", mask, b.ints(1), keepdims=0)


def _single(number: float) -> object:
    import numpy as np

    return np.array(number, np.float32)


RULES = {
    "LayerNormalization": layer_norm,
    "SimplifiedLayerNormalization": simplified,
    "SkipLayerNormalization": skip_layer_norm,
    "SkipSimplifiedLayerNormalization": skip_simplified,
    "EmbedLayerNormalization": embed_layer_norm,
}
