"""Matrix products in plain layout: rows of B are added, so that the inner loop is contiguous."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_native.cwriter import address, broadcast_strides, literal, loop, names, nest
from infer_native.kernels import Code, kernel
from infer_native.kernels.spread import unpacked

if TYPE_CHECKING:
    from infer_native.kernels.spread import Unpacked
    from infer_native.program import Layer, Tensor


def _matrices(layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shapes of A, B and the product with at least two axes: vectors are rows and columns."""
    a, b = layer.input(0).shape, layer.input(1).shape
    a2 = (1, *a) if len(a) == 1 else a
    b2 = (*b, 1) if len(b) == 1 else b
    rank = max(len(a2), len(b2)) - 2
    batch = tuple(
        max(x, y) if x and y else 0
        for x, y in zip(
            (1,) * (rank - len(a2) + 2) + a2[:-2], (1,) * (rank - len(b2) + 2) + b2[:-2],
            strict=True,
        )
    )  # fmt: skip
    return a2, b2, (*batch, a2[-2], b2[-1])


def batched(layer: Layer, term: str, start: str = "0") -> str:
    """y[i, j] = sum of `term` over k; A and B stand for the elements."""
    a, b, y = _matrices(layer)
    m, k, n = y[-2], a[-1], y[-1]
    index = names(len(y) - 2, "b")
    at_a = address(index, broadcast_strides((*a[:-2], m * k), (*y[:-2], m * k))[:-1])
    at_b = address(index, broadcast_strides((*b[:-2], k * n), (*y[:-2], k * n))[:-1])
    at_y = address(index, broadcast_strides((*y[:-2], m * n), (*y[:-2], m * n))[:-1])
    types = layer.input(0).ctype, layer.input(1).ctype, layer.output().ctype
    add = term.replace("A", "ap[k]").replace("B", f"bp[k * {n} + j]")
    inner = nest(("k", "j"), (k, n), f"yp[j] += {add};")
    body = (
        f"const {types[0]} *ap = x0 + ({at_a}) + i * {k};\n"
        f"const {types[1]} *bp = x1 + ({at_b});\n"
        f"{types[2]} *yp = y0 + ({at_y}) + i * {n};\n"
        + nest(("j",), (n,), f"yp[j] = {start};")
        + "\n"
        + inner
    )
    return nest((*index, "i"), (*y[:-2], m), body)


@kernel("MatMul")
def MatMul(layer: Layer) -> Code:
    """Batched with broadcasting."""
    b = layer.input(1)
    if b.root.data is not None and len(b.shape) == 2:
        held = unpacked(b.root.data.reshape(b.shape).T)
        if held is not None:
            return _by_columns(layer, held, "sum")
    return Code(batched(layer, "A * B"))


@kernel("Gemm")
def Gemm(layer: Layer) -> Code:
    """alpha * A' B' + beta * C."""
    a, y = layer.input(0), layer.output()
    ta, tb = layer.attrs.get("transA", 0), layer.attrs.get("transB", 0)
    m, n = y.shape
    k = a.shape[0] if ta else a.shape[1]
    t = y.ctype
    at_a = f"x0[k * {m} + i]" if ta else f"x0[i * {k} + k]"
    at_b = f"x1[j * {k} + k]" if tb else f"x1[k * {n} + j]"
    alpha, beta = (literal(layer.attrs.get(p, 1.0), t) for p in ("alpha", "beta"))
    weights = layer.input(1).root.data
    if weights is not None and not ta:
        matrix = weights.reshape(layer.input(1).shape)
        held = unpacked(matrix if tb else matrix.T)
        if held is not None:
            return _by_columns(layer, held, f"{alpha} * sum + {_bias(layer, y, beta)}")
    if tb:
        dot = nest(("k",), (k,), f"sum += {at_a} * {at_b};")
        body = f"{t} sum = 0;\n{dot}\ny0[i * {n} + j] = {alpha} * sum + {_bias(layer, y, beta)};"
        return Code(nest(("i", "j"), (m, n), body))
    body = (
        f"{t} *yp = y0 + i * {n};\n"
        + nest(("j",), (n,), "yp[j] = 0;")
        + "\n"
        + nest(("k", "j"), (k, n), f"yp[j] += {at_a} * {at_b};")
        + "\n"
        + nest(("j",), (n,), f"yp[j] = {alpha} * yp[j] + {_bias(layer, y, beta)};")
    )
    return Code(nest(("i",), (m,), body))


def _by_columns(layer: Layer, held: Unpacked, result: str) -> Code:
    """Constant weights that are held as bits: every row of A with one column at a time."""
    x, depth = layer.input(0), held.depth
    outputs = len(held.tables[1])
    dot = nest(("k",), (depth,), f"sum += x0[i * {depth} + k] * {held.row}[k];")
    row = f"float sum = 0;\n{dot}\ny0[i * {outputs} + j] = {result};"
    body = held.fill("j") + nest(("i",), (x.size // depth,), row)
    return Code(loop("j", outputs, body), held.tables, held.scratch)


def _bias(layer: Layer, y: Tensor, beta: str) -> str:
    c = layer.optional(2)
    if c is None:
        return "0"
    return f"{beta} * x2[{address(('i', 'j'), broadcast_strides(c.shape, y.shape))}]"
