"""Integer layers from DequantizeLinear -> operator -> QuantizeLinear, with ONNX Runtime's rounding.

Given:  y = Q(Conv(DQ(x), DQ(w), DQ(b)))
Result: one layer that sums integers and rounds once; Add, GlobalAveragePool and Gemm likewise
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from infer_native.fuse import remove_unused
from infer_native.program import Layer, Tensor

if TYPE_CHECKING:
    from infer_native.program import Array, Program


SAME_SCALE = 1e-5  # relative: a product that was rounded once or twice


@dataclass(frozen=True)
class Scaled:
    """A quantised tensor: value = (q - zero) * scale."""

    tensor: Tensor
    scale: np.float32
    zero: int


@dataclass(frozen=True)
class Linear:
    """Parameters of an integer Conv or Gemm with uint8 inputs.

    `weights` are int8 [outputs, ...], `bias` int32 [outputs] holds the input's zero point too,
    `scale` float32 [outputs] brings a sum to the scale of the output (or to the real number).
    `zero_in` is what padding is made of.
    """

    weights: Array
    bias: Array
    scale: Array
    zero_in: int
    zero_out: int


@dataclass(frozen=True)
class Sum:
    """q = round(a * ratio_a + (b * ratio_b + shift)): ONNX Runtime's QLinearAdd."""

    ratio_a: np.float32
    ratio_b: np.float32
    shift: np.float32


@dataclass(frozen=True)
class Product:
    """q = round((a - zero_a) * (b - zero_b) * scale + zero_out): ONNX Runtime's QLinearMul."""

    zero_a: int
    zero_b: int
    scale: np.float32
    zero_out: int


@dataclass(frozen=True)
class Shift:
    """q = round(p * ratio + shift[outputs]): QLinearAdd of a product and a constant row."""

    ratio: np.float32
    shift: Array


@dataclass(frozen=True)
class Mean:
    """q = round((sum - count * zero_in) * scale) + zero_out."""

    scale: np.float32
    zero_in: int
    zero_out: int


def fuse_integer(program: Program) -> None:
    """Rewrite every region whose form is known; the others keep their float layers."""
    _Fusion(program).run()
    remove_unused(program)


class _Fusion:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._users = program.users()
        self._outputs = {t.root for t in program.outputs}
        self._real: dict[Tensor, Scaled] = {}
        self._gone: set[int] = set()
        self._products: dict[Tensor, Layer] = {}
        self._superseded: set[int] = set()

    def run(self) -> None:
        layers: list[Layer] = []
        for layer in self._program.layers:
            if id(layer) in self._gone:
                continue
            if layer.op == "DequantizeLinear":
                self._dequantize(layer)
            if layer.op == "QuantizeLinear" and self._same(layer):
                continue
            layers.append(self._integer(layer) or layer)
        self._program.layers = [x for x in layers if id(x) not in self._superseded]

    def _dequantize(self, layer: Layer) -> None:
        if (found := parameters(layer, layer.input(0))) is not None:
            self._real[layer.output()] = found

    def _same(self, layer: Layer) -> bool:
        """Q(DQ(q)), perhaps with a view between: the same numbers again."""
        source = self._source(layer.input(0))
        target = parameters(layer, layer.output())
        if source is None or target is None or layer.output().root in self._outputs:
            return False
        if (source.scale, source.zero) != (target.scale, target.zero):
            return False
        if source.tensor.dtype != target.tensor.dtype:
            return False
        layer.output().view_of = source.tensor
        return True

    def _source(self, tensor: Tensor) -> Scaled | None:
        """The quantised tensor behind a dequantised one, also through views of it."""
        while tensor not in self._real:
            if tensor.view_of is None:
                return None
            tensor = tensor.view_of
        return self._real[tensor]

    def _integer(self, layer: Layer) -> Layer | None:
        make = _MAKERS.get(layer.op)
        if make is None or layer.output().root in self._outputs:
            return self._real_gemm(layer) if layer.op == "Gemm" else None
        last, passed = self._quantised(layer)
        if last is None:
            return self._real_gemm(layer) if layer.op == "Gemm" else None
        target = parameters(last, last.output())
        if target is None or target.tensor.dtype != np.uint8 or last.output().root in self._outputs:
            return None
        sources = [self._exact(t) for t in layer.inputs if t is not None and t.root.data is None]
        if layer.op == "Add" and len(sources) == 1:
            return self._shifted(layer, sources[0], target, last, passed)
        found = make(layer, sources, target)
        if found is not None and found.op == "_QMatMul":
            self._products[target.tensor] = found
        if found is not None:
            self._gone |= {id(last), *map(id, passed)}
        return found

    def _shifted(
        self, layer: Layer, source: Scaled | None, target: Scaled, last: Layer, passed: list[Layer]
    ) -> Layer | None:
        """A product plus a constant row, where nobody else reads the product."""
        product = None if source is None else self._products.get(source.tensor)
        if source is None or product is None or "shift" in product.attrs:
            return None
        (real,) = (t for t in layer.inputs if t is not None and t.root.data is None)
        alone = len(self._users[source.tensor]) == len(self._users[real]) == 1
        shift = _row(layer, source, target, product.attrs["linear"].weights.shape[0])
        if shift is None or not alone or source.tensor.root in self._outputs:
            return None
        self._gone |= {id(last), *map(id, passed)}
        # In the place of the sum: nothing between reads it.
        self._superseded.add(id(product))
        attrs = {**product.attrs, "shift": shift}
        return Layer("_QMatMul", layer.name, product.inputs, [target.tensor], attrs)

    def _exact(self, tensor: Tensor) -> Scaled | None:
        """As `_source`, for a tensor that is seen under its own shape."""
        found = self._real.get(tensor)
        return found if found is not None and found.tensor.dtype == np.uint8 else None

    def _quantised(self, layer: Layer) -> tuple[Layer | None, list[Layer]]:
        """The only reader, a QuantizeLinear, and the clamps before it that change nothing."""
        passed: list[Layer] = []
        tensor = layer.output()
        while True:
            readers = self._users.get(tensor.root, [])
            if len(readers) != 1 or tensor.root in self._outputs:
                return None, []
            (reader,) = readers
            if reader.input(0) is not tensor:
                return None, []
            if reader.op == "QuantizeLinear":
                clamps = all(_idle(c, parameters(reader, tensor)) for c in passed)
                return (reader, passed) if clamps else (None, [])
            if reader.op not in ("Relu", "Clip"):
                return None, []
            passed.append(reader)
            tensor = reader.output()

    def _real_gemm(self, layer: Layer) -> Layer | None:
        """A Gemm whose result stays a real number: the sum times both scales."""
        x = self._source(layer.input(0))
        if x is None or x.tensor.dtype != np.uint8:
            return None
        found = _linear(layer, x, None)
        if found is None:
            return None
        return Layer("_QGemm", layer.name, [_seen(x, layer)], layer.outputs, {"linear": found})


def _seen(x: Scaled, layer: Layer) -> Tensor:
    """The quantised input of a Gemm under the shape that the Gemm sees."""
    shape = layer.input(0).shape
    if x.tensor.shape == shape:
        return x.tensor
    return Tensor(f"{x.tensor.name}_rows", shape, x.tensor.dtype, view_of=x.tensor)


def parameters(layer: Layer, tensor: Tensor) -> Scaled | None:
    """Scale and zero point of Q or DQ where they are one constant each."""
    scale, zero = layer.input(1), layer.optional(2)
    if scale.size != 1 or scale.root.data is None or scale.ctype != "float":
        return None
    if zero is not None and (zero.size != 1 or zero.root.data is None):
        return None
    shift = 0 if zero is None or zero.root.data is None else int(zero.root.data.reshape(()))
    return Scaled(tensor, np.float32(scale.root.data.reshape(())), shift)


def _idle(clamp: Layer, target: Scaled | None) -> bool:
    """Do the limits lie outside of what uint8 holds, up to what rounds to its ends?"""
    if target is None:
        return False
    low, high = 0.0, np.inf
    if clamp.op == "Clip":
        limits = [clamp.optional(i) for i in (1, 2)]
        if any(t is not None and t.root.data is None for t in limits):
            return False
        given = [None if t is None else t.root.data for t in limits]
        low = -np.inf if given[0] is None else float(given[0].reshape(()))
        high = np.inf if given[1] is None else float(given[1].reshape(()))
    least = (0 - target.zero + 0.5) * float(target.scale)
    most = (255 - target.zero - 0.5) * float(target.scale)
    return low <= least - 0.5 * float(target.scale) + 1e-12 and high >= most


def _conv(layer: Layer, sources: list[Scaled | None], target: Scaled) -> Layer | None:
    if len(sources) != 1 or sources[0] is None:
        return None
    found = _linear(layer, sources[0], target)
    if found is None:
        return None
    attrs = {**layer.attrs, "linear": found}
    output = target.tensor
    return Layer("_QConv", layer.name, [sources[0].tensor], [output], attrs)


def _linear(layer: Layer, x: Scaled, target: Scaled | None) -> Linear | None:
    """Weights int8 with zero point 0, bias int32 at the product of the scales, or none."""
    stored = layer.input(1).stored
    attrs = layer.attrs
    plain = attrs.get("alpha", 1.0) == attrs.get("beta", 1.0) == 1.0 and not attrs.get("transA", 0)
    if stored is None or not plain:
        return None
    w, w_scale, w_zero = (*stored.inputs, None)[:3]
    if w is None or w_scale is None or w.data is None or w_scale.data is None:
        return None
    if w.dtype != np.int8 or (w_zero is not None and w_zero.data is not None and w_zero.data.any()):
        return None
    flip = layer.op == "MatMul" or (layer.op == "Gemm" and not attrs.get("transB", 0))
    if w_scale.size > 1 and stored.axis % len(w.shape) != (1 if flip else 0):
        return None
    weights = w.data.T if flip else w.data
    outputs = weights.shape[0]
    scales = np.broadcast_to(w_scale.data.reshape(-1), (outputs,)).astype(np.float32)
    products = x.scale * scales
    bias = _bias(layer, products)
    if bias is None:
        return None
    sums = weights.reshape(outputs, -1).astype(np.int64).sum(axis=1)
    folded = bias - x.zero * sums
    largest = np.abs(weights.reshape(outputs, -1).astype(np.int64)).sum(axis=1) * 255
    if (np.abs(folded) + largest).max(initial=0) >= 2**31:
        return None  # int32 would overflow
    scale = products if target is None else products / target.scale
    return Linear(
        np.ascontiguousarray(weights), folded.astype(np.int32), scale.astype(np.float32), x.zero,
        0 if target is None else target.zero,
    )  # fmt: skip


def _bias(layer: Layer, products: Array) -> Array | None:
    """int64 [outputs]; None for a bias that is no int32 at the scale of the products."""
    bias = layer.optional(2)
    if bias is None:
        return np.zeros(products.size, np.int64)
    stored, scale = bias.stored.inputs[:2] if bias.stored is not None else (None, None)
    if stored is None or stored.data is None or scale is None or scale.data is None:
        return None
    if stored.dtype != np.int32 or stored.size != products.size:
        return None
    if not np.allclose(scale.data.reshape(-1), products, rtol=SAME_SCALE, atol=0):
        return None
    return stored.data.astype(np.int64).reshape(-1)


def _add(layer: Layer, sources: list[Scaled | None], target: Scaled) -> Layer | None:
    if len(sources) != 2 or sources[0] is None or sources[1] is None:
        return None
    a, b = sources[0], sources[1]
    if a.tensor.shape != target.tensor.shape or b.tensor.shape != target.tensor.shape:
        return None
    ratio_a, ratio_b = a.scale / target.scale, b.scale / target.scale
    attrs = {"sum": _sum(ratio_a, ratio_b, a.zero, b.zero, target.zero)}
    return Layer("_QAdd", layer.name, [a.tensor, b.tensor], [target.tensor], attrs)


def _row(layer: Layer, a: Scaled, target: Scaled, outputs: int) -> Shift | None:
    """The constant of a sum as bytes of one scale: what QLinearAdd adds for each output."""
    (constant,) = (t for t in layer.inputs if t is not None and t.root.data is not None)
    stored = constant.stored
    if stored is None or constant.size != outputs or constant.shape[-1:] != (outputs,):
        return None
    q, scale, zero = (*stored.inputs, None)[:3]
    if q is None or scale is None or q.data is None or scale.data is None:
        return None
    point = 0 if zero is None or zero.data is None or zero.size != 1 else int(zero.data.item())
    if scale.size != 1 or q.dtype != np.uint8:
        return None
    ratio_a, ratio_b = a.scale / target.scale, np.float32(scale.data.item()) / target.scale
    sum_ = _sum(ratio_a, ratio_b, a.zero, point, target.zero)
    # The sum in float64 is exact up to the last rounding, as the fused product is.
    exact = q.data.reshape(-1).astype(np.float64) * np.float64(sum_.ratio_b)
    return Shift(ratio_a, (exact + np.float64(sum_.shift)).astype(np.float32))


def _sum(ratio_a: np.float32, ratio_b: np.float32, zero_a: int, zero_b: int, zero_out: int) -> Sum:
    # ONNX Runtime's compiler fuses the first product with the sum: float64 holds it exactly.
    late = np.float32(ratio_b * np.float32(zero_b))
    zeros = np.float32(np.float64(ratio_a) * zero_a + np.float64(late))
    return Sum(ratio_a, ratio_b, np.float32(zero_out) - zeros)


def _mean(layer: Layer, sources: list[Scaled | None], target: Scaled) -> Layer | None:
    if len(sources) != 1 or sources[0] is None:
        return None
    x = sources[0]
    count = int(np.prod(x.tensor.shape[2:]))
    scale = np.float32(x.scale / np.float32(target.scale * np.float32(count)))
    attrs = {"mean": Mean(scale, x.zero, target.zero)}
    return Layer("_QMean", layer.name, [x.tensor], [target.tensor], attrs)


def _product(layer: Layer, sources: list[Scaled | None], target: Scaled) -> Layer | None:
    if len(sources) != 2 or sources[0] is None or sources[1] is None:
        return None
    a, b = sources[0], sources[1]
    if b.tensor.shape == target.tensor.shape:
        a, b = b, a
    shape = target.tensor.shape
    if a.tensor.shape != shape or (b.tensor.shape != shape and _per_channel(b, shape) is None):
        return None
    scale = np.float32(np.float32(a.scale * b.scale) / target.scale)
    attrs = {"product": Product(a.zero, b.zero, scale, target.zero)}
    return Layer("_QMul", layer.name, [a.tensor, b.tensor], [target.tensor], attrs)


def _per_channel(b: Scaled, shape: tuple[int, ...]) -> bool | None:
    """One number for each channel of an image."""
    return True if len(shape) == 4 and b.tensor.shape == (*shape[:2], 1, 1) else None


def _matmul(layer: Layer, sources: list[Scaled | None], target: Scaled) -> Layer | None:
    """Rows times a constant matrix."""
    if len(sources) != 1 or sources[0] is None or len(layer.input(1).shape) != 2:
        return None
    if layer.input(0).root.data is not None or len(layer.input(0).shape) < 2:
        return None
    found = _linear(layer, sources[0], target)
    if found is None:
        return None
    attrs = {"linear": found}
    return Layer("_QMatMul", layer.name, [sources[0].tensor], [target.tensor], attrs)


_MAKERS = {
    "Conv": _conv, "Add": _add, "GlobalAveragePool": _mean, "Mul": _product, "MatMul": _matmul,
}  # fmt: skip
