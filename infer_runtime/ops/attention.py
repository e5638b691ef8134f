"""Attention over queries, keys and values, and rotary positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime.arrays import Array, as_type, integer_like, namespace, number, widened
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Callable

# What the output qk_matmul_output holds.
_RAW, _CAPPED, _BIASED, _WEIGHTS = range(4)


@dataclass(frozen=True)
class Masking:
    """Which keys a query may look at: query i stands at position i + offset."""

    causal: bool
    left: int
    right: int
    offset: Array | int  # one number, or one for each sample
    lengths: Array | None  # keys that count, for each sample


@op("Attention", since=23, library="any")
def Attention(
    Q: Array,
    K: Array,
    V: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    n_outputs: int = 1,
) -> tuple[Array, ...]:
    """Scaled dot-product attention (ONNX Attention 23 to 25).

    Q [batch, heads, queries, size] or [batch, queries, heads * size], likewise K and V; several
    query heads may share one of K and V. A query that may look at no key yields zeros.
    """
    del n_outputs
    flat = Q.ndim == 3
    q, k, v = _heads(Q, q_num_heads), _heads(K, kv_num_heads), _heads(V, kv_num_heads)
    xp = namespace(q)
    if past_key is not None and past_value is not None:
        k, v = xp.concat([past_key, k], axis=2), xp.concat([past_value, v], axis=2)
    present = (k, v)
    masking = Masking(
        bool(is_causal), left_window_size, right_window_size,
        _offset(q, past_key, nonpad_kv_seqlen), nonpad_kv_seqlen,
    )  # fmt: skip
    bias = _bias(q, k, attn_mask, masking)
    scores = raw = _scores(q, k, scale)
    if softcap:
        scores = number(softcap, scores) * xp.tanh(scores / number(softcap, scores))
    biased = scores if bias is None else scores + bias
    weights = _softmax(_in_precision(biased, softmax_precision), bias)
    y = as_type(xp.matmul(as_type(weights, widened(v).dtype), _shared(widened(v), q)), Q.dtype)
    if flat:
        y = xp.permute_dims(y, (0, 2, 1, 3)).reshape((*Q.shape[:2], -1))
    shown = (raw, scores, biased, weights)[qk_matmul_output_mode]
    return y, *present, as_type(shown, Q.dtype)


@op("FlexAttention", domain="ai.onnx.preview", library="any")
def FlexAttention(
    Q: Array,
    K: Array,
    V: Array,
    *,
    scale: float | None = None,
    softmax_precision: int | None = None,
    score_mod: Callable[..., tuple[Array, ...]] | None = None,
    prob_mod: Callable[..., tuple[Array, ...]] | None = None,
) -> Array:
    """Attention whose scores and weights pass through subgraphs."""
    single = ir.DataType.FLOAT if Q.dtype.itemsize < 8 else ir.DataType.DOUBLE
    scores = _in_precision(_scores(Q, K, scale), softmax_precision or single)
    if score_mod is not None:
        (scores,) = score_mod(scores)
    weights = _softmax(scores, None)
    if prob_mod is not None:
        (weights,) = prob_mod(weights)
    v = _shared(widened(V), Q)
    return as_type(namespace(Q).matmul(as_type(weights, v.dtype), v), Q.dtype)


def _heads(x: Array, count: int | None) -> Array:
    """[batch, heads, length, size]."""
    if x.ndim == 4:
        return x
    if not count:
        raise ValueError("inputs of rank 3 need q_num_heads and kv_num_heads")
    batch, length = x.shape[:2]
    split = x.reshape((batch, length, count, -1))
    return namespace(x).permute_dims(split, (0, 2, 1, 3))


def _shared(x: Array, q: Array) -> Array:
    """Each head of keys or values once for every query head that uses it."""
    times = q.shape[1] // x.shape[1]
    return x if times == 1 else namespace(x).repeat(x, times, axis=1)


def _scores(q: Array, k: Array, scale: float | None) -> Array:
    xp = namespace(q)
    half = math.sqrt(scale if scale is not None else 1 / math.sqrt(q.shape[3]))
    wide_q, wide_k = widened(q), _shared(widened(k), q)
    turned = xp.permute_dims(wide_k, (0, 1, 3, 2))
    return xp.matmul(wide_q * number(half, wide_q), turned * number(half, wide_k))


def _in_precision(scores: Array, precision: int | None) -> Array:
    if precision is None:
        return scores
    xp = namespace(scores)
    return as_type(scores, xp.float64 if precision == ir.DataType.DOUBLE else xp.float32)


def _softmax(scores: Array, bias: Array | None) -> Array:
    """Along the keys; zeros where the bias forbids all of them."""
    xp = namespace(scores)
    top = xp.max(scores, axis=-1, keepdims=True)
    top = xp.where(xp.isfinite(top), top, number(0, top))
    weights = xp.exp(scores - top)
    total = xp.sum(weights, axis=-1, keepdims=True)
    weights = weights / xp.where(total == 0, number(1, total), total)
    if bias is None:
        return weights
    forbidden = xp.max(bias, axis=-1, keepdims=True) == -math.inf
    return xp.where(forbidden, number(0, weights), weights)


def _offset(q: Array, past_key: Array | None, lengths: Array | None) -> Array | int:
    """The position of the first query."""
    if past_key is not None:
        return past_key.shape[2]
    return 0 if lengths is None else lengths.reshape(-1) - q.shape[2]


def _bias(q: Array, k: Array, mask: Array | None, masking: Masking) -> Array | None:
    """What is added to the scores: the mask, and -inf where a query may not look."""
    xp, keys = namespace(q), k.shape[2]
    parts = []
    if mask is not None:
        parts.append(_additive(mask, keys, q))
    if (allowed := _allowed(q, keys, masking)) is not None:
        kind = widened(q)[0, 0, 0, 0]
        parts.append(xp.where(allowed, number(0, kind), number(-math.inf, kind)))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _additive(mask: Array, keys: int, q: Array) -> Array:
    """A mask as numbers; keys beyond its end are forbidden."""
    xp, zero = namespace(mask), widened(q)[0, 0, 0, 0] * 0
    if mask.dtype == xp.bool:
        mask = xp.where(mask, number(0, zero), number(-math.inf, zero))
    mask = widened(mask)
    if missing := keys - mask.shape[-1]:
        end = xp.broadcast_to(number(-math.inf, mask), (*mask.shape[:-1], missing))
        mask = xp.concat([mask, as_type(end, mask.dtype)], axis=-1)
    return mask


def _allowed(q: Array, keys: int, masking: Masking) -> Array | None:
    """[batch or 1, 1, queries, keys]; None when everything is."""
    offset = masking.offset
    if not isinstance(offset, int):
        offset = offset.reshape((-1, 1, 1, 1))
    place = integer_like(range(q.shape[2]), q).reshape((1, 1, -1, 1)) + offset
    key = integer_like(range(keys), q).reshape((1, 1, 1, -1))
    rules = []
    if masking.causal:
        rules.append(key <= place)
    if masking.left >= 0:
        rules.append(place - key <= masking.left)
    if masking.right >= 0:
        rules.append(key - place <= masking.right)
    if masking.lengths is not None:
        rules.append(key < masking.lengths.reshape((-1, 1, 1, 1)))
    if not rules:
        return None
    allowed: Any = rules[0]
    for rule in rules[1:]:
        allowed = allowed & rule
    return allowed


@op("RotaryEmbedding", since=23, library="any")
def RotaryEmbedding(
    X: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Array:
    """Rotate pairs of features by angles that follow the position (Su et al., RoFormer, 2021)."""
    xp, flat = namespace(X), X.ndim == 3
    x = X.reshape((*X.shape[:2], num_heads, -1)) if flat else xp.permute_dims(X, (0, 2, 1, 3))
    if position_ids is not None:
        cos_cache, sin_cache = cos_cache[position_ids], sin_cache[position_ids]
    cos, sin = xp.expand_dims(cos_cache, axis=2), xp.expand_dims(sin_cache, axis=2)
    size = rotary_embedding_dim or x.shape[3]
    turned, rest = x[..., :size], x[..., size:]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned[..., : size // 2], turned[..., size // 2 :]
    pair = [cos * a - sin * b, sin * a + cos * b]
    y = xp.stack(pair, axis=-1).reshape(turned.shape) if interleaved else xp.concat(pair, axis=-1)
    y = as_type(xp.concat([y, rest], axis=-1), X.dtype)
    return y.reshape(X.shape) if flat else xp.permute_dims(y, (0, 2, 1, 3))
