"""Which layout each tensor has: NCHWc where a kernel on vectors wants it, plain elsewhere.

A blocked tensor [N, C, H, W] lies as [N, ceil(C / lanes), H, W, lanes]. Conversions stand where
the two meet; they cost nothing for one sample of 1 x 1 images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_native.cwriter import loop
from infer_native.epilogue import fuse_epilogues, fuse_integer_slopes, fuse_integer_sums
from infer_native.kernels import Code, binary, blocked_map
from infer_native.kernels.blocked_concat import concat, fits
from infer_native.program import Layer, Tensor, constant_tensor
from infer_native.select import (
    fast_conv,
    fast_integer,
    fast_pad,
    fast_pool,
    fast_product,
    fast_recurrent,
    fast_resize,
    fast_transposed,
    narrow,
    reads_pixels,
    reads_plain,
)

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.program import Program, Shape

BYTES = ("_QAdd", "_QMul", "_QTable", "_QSlopes")
_POOLS = ("GlobalAveragePool", "GlobalMaxPool")


def assign(program: Program, isa: Isa) -> None:
    """Give tensors their layout, layers their kernels; without vectors all stays plain."""
    if isa.lanes:
        _Assignment(program, isa).run()


class _Assignment:
    """Plain tensors and their blocked twins, as far as they exist."""

    def __init__(self, program: Program, isa: Isa) -> None:
        self._program, self._isa, self._lanes = program, isa, isa.lanes
        self._twins: dict[Tensor, Tensor] = {}
        self._plain: set[Tensor] = {t.root for t in program.inputs}
        # The caller's memory ends with the last channel, a block may go on.
        self._callers = {t.root for t in program.outputs}
        self._layers: list[Layer] = []

    def run(self) -> None:
        fuse_epilogues(self._program, self._isa)
        fuse_integer_sums(self._program, self._isa)
        fuse_integer_slopes(self._program, self._isa)
        for layer in self._program.layers:
            self._layer(layer)
        for tensor in self._program.outputs:
            self._as_plain(tensor)
        self._drop_unread()
        self._program.layers = self._layers

    def _layer(self, layer: Layer) -> None:
        if (
            self._integer(layer)
            or self._product(layer)
            or self._conv(layer)
            or self._binary(layer)
            or self._transposed(layer)
            or self._map(layer)
            or self._global_pool(layer)
            or self._around(layer)
            or self._joined(layer)
            or self._rescaled(layer)
        ):
            return
        for tensor in layer.inputs:
            if tensor is not None:
                self._as_plain(tensor)
        if (chosen := fast_recurrent(layer, self._isa)) is not None:
            layer.attrs["code"] = chosen
        self._layers.append(layer)
        self._plain |= {t.root for t in layer.outputs if t is not None}

    def _integer(self, layer: Layer) -> bool:
        """Blocked in and out; a Gemm and pictures are read as they lie."""
        chosen = fast_integer(layer, self._isa)
        if chosen is None:
            return False
        first = layer.input(0)
        rows = layer.op in ("_QGemm", "_QMatMul") or (layer.op in BYTES and not self._follow(layer))
        plain = rows or (layer.op == "_QConv" and reads_pixels(layer, self._isa))
        if plain:
            self._as_plain(first)
        else:
            first = self._as_blocked(first)
        others = [t for t in layer.inputs[1:] if t is not None]
        if not rows:
            others = [self._as_blocked(t) for t in others]
        for tensor in others if rows else ():
            self._as_plain(tensor)
        output = layer.output()
        if rows:
            self._plain.add(output.root)
        else:
            output = self._new(output)
        attrs = {**layer.attrs, "code": chosen}
        self._layers.append(Layer(layer.op, layer.name, [first, *others], [output], attrs))
        return True

    def _follow(self, layer: Layer) -> bool:
        """Do images that are combined byte by byte lie in blocks?"""
        return len(layer.output().shape) == 4 and all(t in self._twins for t in layer.inputs)

    def _product(self, layer: Layer) -> bool:
        """Plain in, plain out."""
        chosen = fast_product(layer, self._isa)
        if chosen is None:
            return False
        packed = layer.input(1).root.data is not None and len(layer.input(1).shape) == 2
        inputs = layer.inputs[:1] if packed else layer.inputs[:2]
        inputs = [*inputs, *layer.attrs.get("operands", [])]
        for tensor in inputs:
            assert tensor is not None
            self._as_plain(tensor)
        attrs = {**layer.attrs, "code": chosen}
        self._layers.append(Layer(layer.op, layer.name, inputs, layer.outputs, attrs))
        self._plain.add(layer.output())
        return True

    def _conv(self, layer: Layer) -> bool:
        chosen = fast_conv(layer, self._isa)
        if chosen is None:
            return False
        residuals = [self._as_blocked(t) for t in layer.attrs.get("operands", [])]
        first, output = layer.input(0), layer.output()
        plain = narrow(layer, self._isa) > 1
        if plain or (layer.attrs.get("group", 1) == 1 and reads_plain(layer, self._isa)):
            self._as_plain(first)
        else:
            first = self._as_blocked(first)
        inputs: list[Tensor | None] = [first, *residuals]
        if plain:
            self._plain.add(output.root)
        else:
            output = self._new(output)
        attrs = {**layer.attrs, "code": chosen}
        self._layers.append(Layer(layer.op, layer.name, inputs, [output], attrs))
        return True

    def _binary(self, layer: Layer) -> bool:
        """Images of float32 become bits first; rows are plain."""
        if layer.op == "_BRows":
            self._as_plain(layer.input(0))
            self._plain.add(layer.output().root)
            layer.attrs["code"] = lambda fast: binary.rows(fast, self._isa)
            self._layers.append(layer)
            return True
        if layer.op != "_BConv" or not binary.fits(layer, self._isa):
            return False
        residuals = [self._as_blocked(t) for t in layer.attrs.get("operands", [])]
        inputs: list[Tensor | None] = [self._bits(layer), *residuals]
        image = binary.image_of(layer, self._isa)
        attrs = {**layer.attrs, "shape": layer.input(0).shape, "image": image, "signs": []}
        attrs["code"] = lambda fast: binary.conv(fast, self._isa)
        made: list[Tensor | None] = [self._new(layer.output())]
        self._layers.append(Layer(layer.op, layer.name, inputs, made, attrs))
        return True

    def _bits(self, layer: Layer) -> Tensor:
        """What a binary convolution reads; one that computes its input writes it on its way."""
        first, signs = self._as_blocked(layer.input(0)), binary.signs_of(layer, self._isa)
        made = binary.bits_tensor(first.name, first.shape[0], signs.image)
        before = next((x for x in self._layers if first in x.outputs), None)
        if before is not None and before.op == "_BConv" and binary.writes_signs(self._isa):
            before.attrs["signs"].append(signs)
            before.outputs.append(made)
        else:
            attrs = {"signs": signs, "code": binary.sign}
            self._layers.append(Layer("_Signs", first.name, [first], [made], attrs))
        return made

    def _drop_unread(self) -> None:
        """Numbers of which only the bits are read are not stored."""
        read = {t.root for x in self._layers for t in x.inputs if t is not None}
        read |= {t.root for t in self._program.outputs}
        for layer in self._layers:
            if layer.op == "_BConv" and layer.attrs.get("signs") and layer.output() not in read:
                layer.outputs[0] = None

    def _transposed(self, layer: Layer) -> bool:
        found = fast_transposed(layer, self._isa)
        if found is None:
            return False
        chosen, plain = found
        output = layer.output()
        if plain:
            self._plain.add(output.root)
        else:
            output = self._new(output)
        attrs = {**layer.attrs, "code": chosen}
        first = self._as_blocked(layer.input(0))
        self._layers.append(Layer(layer.op, layer.name, [first], [output], attrs))
        return True

    def _map(self, layer: Layer) -> bool:
        """On blocked tensors where one of the inputs is blocked and the others can follow."""
        if layer.op != "_Map" or not _is_image(layer.output()):
            return False
        out = layer.output()
        tensors = [t for t in layer.inputs if t is not None]
        if not any(t in self._twins and t.shape == out.shape for t in tensors):
            return False
        kinds = [_kind(t, out) for t in tensors]
        if "" in kinds:
            return False
        inputs: list[Tensor | None] = []
        for tensor, kind in zip(tensors, kinds, strict=True):
            if kind == "image":
                inputs.append(self._as_blocked(tensor))
            elif kind == "one":
                self._as_plain(tensor)
                inputs.append(tensor)
            else:
                inputs.append(self._per_channel(tensor, out.shape[1]))
        attrs = {**layer.attrs, "code": blocked_map.chain}
        self._layers.append(Layer("_Map", layer.name, inputs, [self._new(out)], attrs))
        return True

    def _global_pool(self, layer: Layer) -> bool:
        if layer.op not in (*_POOLS, "ReduceMean", "ReduceMax") or len(layer.outputs) != 1:
            return False
        x, y = layer.input(0), layer.output()
        if x not in self._twins or y.shape != (*x.shape[:2], 1, 1):
            return False
        if not _is_image(x) or (x.shape[1] == 1 and layer.op not in _POOLS):
            return False
        mean = layer.op in ("GlobalAveragePool", "ReduceMean")
        attrs: dict[str, Any] = {"axes": [2, 3], "keepdims": 1}
        if mean:
            attrs["code"] = blocked_map.mean
        op = "ReduceMean" if mean else "ReduceMax"
        self._layers.append(Layer(op, layer.name, [self._as_blocked(x)], [self._new(y)], attrs))
        return True

    def _around(self, layer: Layer) -> bool:
        """Pooling, borders and nearest neighbours of images that lie in blocks."""
        if layer.optional(0) not in self._twins:
            return False
        chosen = fast_pool(layer) or fast_pad(layer) or fast_resize(layer)
        if chosen is None:
            return False
        inputs: list[Tensor | None] = [self._as_blocked(layer.input(0))]
        attrs = {**layer.attrs, "code": chosen}
        made: list[Tensor | None] = [self._new(layer.output())]
        self._layers.append(Layer(layer.op, layer.name, inputs, made, attrs))
        return True

    def _joined(self, layer: Layer) -> bool:
        """Images side by side, most of them in blocks, that are few to a block."""
        if layer.op != "Concat" or len(layer.output().shape) != 4 or layer.attrs["axis"] % 4 != 1:
            return False
        tensors = [t for t in layer.inputs if t is not None]
        channels = [t.shape[1] for t in tensors]
        found = sum(t.shape[1] for t in tensors if t in self._twins)
        if 2 * found < sum(channels) or not fits(channels, self._lanes):
            return False
        attrs = {**layer.attrs, "code": lambda fast: concat(fast, channels)}
        inputs: list[Tensor | None] = [self._as_blocked(t) for t in tensors]
        made: list[Tensor | None] = [self._new(layer.output())]
        self._layers.append(Layer(layer.op, layer.name, inputs, made, attrs))
        return True

    def _rescaled(self, layer: Layer) -> bool:
        """QuantizeLinear and back with one scale for the tensor: element by element."""
        if layer.op not in ("QuantizeLinear", "DequantizeLinear"):
            return False
        parameters, shape = layer.inputs[1:], layer.input(0).shape
        if layer.op == "DequantizeLinear" and len(shape) == 4 and 2 * shape[1] <= self._lanes:
            return False  # most of a block would be nothing
        if layer.input(0) not in self._twins or any(t and t.size != 1 for t in parameters):
            return False
        inputs: list[Tensor | None] = [self._as_blocked(layer.input(0)), *parameters]
        made: list[Tensor | None] = [self._new(layer.output())]
        self._layers.append(Layer(layer.op, layer.name, inputs, made, layer.attrs))
        return True

    def _new(self, tensor: Tensor) -> Tensor:
        twin = Tensor(tensor.name, self._shape(tensor.shape), tensor.dtype, block=self._lanes)
        self._twins[tensor] = twin
        return twin

    def _shape(self, shape: Shape) -> Shape:
        n, c, h, w = shape
        return (n, -(-c // self._lanes), h, w, self._lanes)

    def _as_blocked(self, tensor: Tensor) -> Tensor:
        if tensor in self._twins:
            return self._twins[tensor]
        self._as_plain(tensor)
        twin = self._new(tensor)
        if _is_line(tensor.shape) and tensor.shape[1] % self._lanes == 0:
            twin.view_of = tensor
        else:
            code = _to_blocked(tensor, self._lanes)
            attrs = {"code": lambda _: code}
            self._layers.append(Layer("_ToBlocked", tensor.name, [tensor], [twin], attrs))
        return twin

    def _as_plain(self, tensor: Tensor) -> None:
        """Fill the plain tensor from its twin, unless somebody did."""
        root = tensor.root
        owner = self._owner(tensor)
        if owner is None or owner in self._plain or root.data is not None:
            return
        twin = self._twins[owner]
        self._plain.add(owner)
        fits = owner not in self._callers or owner.shape[1] % self._lanes == 0
        if _is_line(owner.shape) and fits:
            owner.view_of = twin
            return
        code = _to_plain(owner, self._lanes)
        attrs = {"code": lambda _: code}
        self._layers.append(Layer("_ToPlain", owner.name, [twin], [owner], attrs))

    def _owner(self, tensor: Tensor) -> Tensor | None:
        """Of a chain of views the tensor that has a twin."""
        while tensor not in self._twins or self._twins[tensor].view_of is not None:
            if tensor.view_of is None:
                return None
            tensor = tensor.view_of
        return tensor

    def _per_channel(self, tensor: Tensor, channels: int) -> Tensor:
        """[C, 1, 1] or [1, C, 1, 1], or one for each sample, under a blocked shape."""
        if tensor.root.data is None:
            return self._as_blocked(tensor)
        blocks = -(-channels // self._lanes)
        padded = np.zeros(blocks * self._lanes, tensor.dtype)
        padded[:channels] = tensor.root.data.reshape(-1)
        return constant_tensor(tensor.name, padded.reshape(1, blocks, 1, 1, self._lanes))


def _is_image(tensor: Tensor) -> bool:
    return len(tensor.shape) == 4 and tensor.ctype == "float" and tensor.size > 0


def _is_line(shape: Shape) -> bool:
    """Do both layouts have the elements in the same order?"""
    return shape[0] == 1 and shape[2:] == (1, 1)


def _kind(tensor: Tensor, out: Tensor) -> str:
    """How an operand meets an image: as an image, by channel, as one number; "" for else."""
    if tensor.ctype != "float":
        return ""
    if tensor.size == 1:
        return "one"
    if tensor.shape == out.shape:
        return "image"
    n, c, _, _ = out.shape
    if tensor.root.data is not None:
        return "channel" if tensor.shape in ((c, 1, 1), (1, c, 1, 1)) else ""
    return "channel" if tensor.shape == (n, c, 1, 1) else ""


def _to_blocked(tensor: Tensor, lanes: int) -> Code:
    """Block by block; the lanes beyond the last channel are zero."""
    n, c, h, w = tensor.shape
    blocks, pixels = -(-c // lanes), h * w
    if tensor.dtype.itemsize == 1:
        # Of a loop over bytes that are far apart gcc makes vectors, in code that takes it most of a
        # minute: it must not see where they are.
        pixel = (
            f"const {tensor.ctype} *x = x0 + (n * {c} + b * {lanes}) * {pixels} + i;\nHIDE(x);\n"
            f"for (long k = 0; k < {lanes}; k++)\n"
            f"  y0[((n * {blocks} + b) * {pixels} + i) * {lanes} + k] = "
            f"b * {lanes} + k < {c} ? x[k * {pixels}] : 0;"
        )
        return Code(loop("n", n, loop("b", blocks, loop("i", pixels, pixel))))
    whole, turned = _squares(tensor, lanes)
    fill = f"for (long k = 0; k < {lanes}; k++)\n"
    line = (
        f"const long c = b * {lanes} + k;\n"
        f"const long at = (n * {c} + c) * {pixels} + i;\n"
        f"y0[((n * {blocks} + b) * {pixels} + i) * {lanes} + k] = c < {c} ? x0[at] : 0;"
    )
    square = (
        f"nx_turn(x0 + (n * {c} + b * {lanes}) * {pixels} + i, {pixels}, "
        f"y0 + ((n * {blocks} + b) * {pixels} + i) * {lanes}, {lanes});"
    )
    body = _by_squares(square, turned, lanes, whole)
    rest = loop("i", pixels, f"{fill}{{\n{line}\n}}", f"b < {whole} ? {turned} : 0")
    return Code(loop("n", n, loop("b", blocks, f"{body}{rest}")))


def _to_plain(tensor: Tensor, lanes: int) -> Code:
    """Channel by channel."""
    n, c, h, w = tensor.shape
    blocks, pixels = -(-c // lanes), h * w
    whole, turned = _squares(tensor, lanes)
    line = (
        f"y0[(n * {c} + c) * {pixels} + i] = "
        f"x0[((n * {blocks} + c / {lanes}) * {pixels} + i) * {lanes} + c % {lanes}];"
    )
    square = (
        f"nx_turn(x0 + ((n * {blocks} + b) * {pixels} + i) * {lanes}, {lanes}, "
        f"y0 + (n * {c} + b * {lanes}) * {pixels} + i, {pixels});"
    )
    body = loop("b", whole, _by_squares(square, turned, lanes, whole)) + "\n" if turned else ""
    rest = loop("i", pixels, line, f"c < {whole * lanes} ? {turned} : 0")
    return Code(loop("n", n, body + loop("c", c, rest)))


def _squares(tensor: Tensor, lanes: int) -> tuple[int, int]:
    """Blocks of which every lane is a channel, and pixels in whole vectors; of float32 alone."""
    _, c, h, w = tensor.shape
    if tensor.ctype != "float" or c < lanes or h * w < lanes:
        return 0, 0
    return c // lanes, h * w // lanes * lanes


def _by_squares(square: str, turned: int, lanes: int, whole: int) -> str:
    if not turned:
        return ""
    head = f"for (long i = 0; i < (b < {whole} ? {turned} : 0); i += {lanes})"
    return f"{head} {square}\n"
