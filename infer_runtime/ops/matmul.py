"""Matrix products."""

from __future__ import annotations

import numpy as np

from infer_runtime.arrays import Array, as_type, check_room, namespace, number, widened
from infer_runtime.registry import op


@op("MatMul", library="any")
def MatMul(A: Array, B: Array) -> Array:
    """Matrix product; narrow floats are summed in float32."""
    if min(A.ndim, B.ndim) > 1:
        lead = np.broadcast_shapes(tuple(A.shape[:-2]), tuple(B.shape[:-2]))
        check_room((*lead, A.shape[-2], B.shape[-1]), A.dtype.itemsize)
    return as_type(namespace(A, B).matmul(widened(A), widened(B)), A.dtype)


@op("Gemm", since=7, library="any")
def Gemm(
    A: Array,
    B: Array,
    C: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """alpha * A' * B' + beta * C for matrices."""
    a, b = widened(A), widened(B)
    y = namespace(a, b).matmul(a.T if transA else a, b.T if transB else b)
    if alpha != 1:
        y = y * number(alpha, y)
    if C is not None:
        c = widened(C)
        y = y + (c if beta == 1 else c * number(beta, c))
    return as_type(y, A.dtype)


@op("Einsum", since=12, library="any")
def Einsum(*inputs: Array, equation: str) -> Array:
    """Sum of products by an equation over named axes."""
    wide = [widened(x) for x in inputs]
    names = equation.replace(" ", "")
    if namespace(*inputs) is np:
        return as_type(np.einsum(names, *wide, optimize=True), inputs[0].dtype)
    import torch

    return as_type(torch.einsum(names, *wide), inputs[0].dtype)
