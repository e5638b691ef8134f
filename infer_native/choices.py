"""What there is to choose from for a layer: algorithms, and how many vectors wide its tiles are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from infer_native.kernels import few_rows, spread_winograd, winograd
from infer_native.kernels.gemm import MAX_COLUMNS, choose
from infer_native.kernels.geometry import window_of
from infer_native.kernels.short_weights import keeps_short
from infer_native.kernels.spread import levels_of_layer, widest
from infer_native.kernels.vnni_ops import GROUP, REGISTERS
from infer_native.kernels.wide_integer import PRODUCT
from infer_native.select import (
    fast_conv,
    fast_integer,
    fast_product,
    narrow,
    reads_plain,
    winograd_size,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from infer_native.isa import Isa
    from infer_native.program import Layer, Program
    from infer_runtime.ops.window import Window

    Pick = Callable[[str, tuple["Choice", ...]], "Choice"]

WIDEST = 4  # vectors; wider tiles have few rows
_PATTERN = re.compile(r"(direct|winograd[24])/([1-8])")
_GEOMETRY = ("group", "strides", "pads", "dilations", "auto_pad", "transB")


@dataclass(frozen=True)
class Choice:
    """An algorithm, `winograd` being the side of its tiles or 0, and the columns of a product."""

    winograd: int
    width: int

    def __str__(self) -> str:
        return f"{f'winograd{self.winograd}' if self.winograd else 'direct'}/{self.width}"


@dataclass(frozen=True)
class _Size:
    """Rows and columns of a product, and what the processor has for its tiles."""

    rows: int
    columns: int
    registers: int
    embedded: bool
    widest: int = MAX_COLUMNS

    @property
    def width(self) -> int:
        """Columns of the tiles that the count of multiply-adds takes."""
        size = (self.rows, self.columns, self.registers, self.embedded)
        return choose(*size, widest=self.widest)[0].columns


def parsed(text: str) -> Choice | None:
    """The choice of a text like 'winograd4/2'; None where it is none."""
    found = _PATTERN.fullmatch(text)
    if found is None:
        return None
    algorithm, width = found.groups()
    return Choice(int(algorithm.removeprefix("winograd").replace("direct", "0")), int(width))


def mark(program: Program, isa: Isa, pick: Pick) -> None:
    """Ask `pick` for the choice of every layer that has more than one; write it into the layer."""
    for layer in program.layers:
        options = candidates(layer, isa)
        if len(options) > 1:
            key = geometry(layer)
            choice = pick(key, options)
            layer.attrs |= {"key": key, "choice": choice, "width": choice.width}
            layer.attrs["winograd"] = choice.winograd


def geometry(layer: Layer) -> str:
    """What the time of a layer depends on; layers that share it share what was measured."""
    linear = layer.attrs["linear"].weights.shape if "linear" in layer.attrs else None
    shapes = [layer.input(0).shape, linear or layer.input(1).shape]
    given = [f"{n}={_joined(layer.attrs[n], ',')}" for n in _GEOMETRY if layer.attrs.get(n)]
    levels = None if linear else levels_of_layer(layer)
    if levels is not None:
        given.append(f"bits={2 if levels.ternary else 1}")
    elif layer.op in ("MatMul", "Gemm") and keeps_short(layer):
        given.append("short=1")
    return " ".join([layer.op.strip("_"), *(_joined(s, "x") for s in shapes), *given])


def _joined(value: object, mark_: str) -> str:
    return mark_.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def candidates(layer: Layer, isa: Isa) -> tuple[Choice, ...]:
    """First what the cost model takes; empty for a layer without a product on vectors."""
    sizes = _sizes(layer, isa)
    if not sizes:
        return ()
    default, *others = sizes
    natural = sizes[default].width
    widths = [w for w in range(1, min(WIDEST, sizes[default].columns) + 1) if w != natural]
    return (
        Choice(default, natural),
        *(Choice(size, sizes[size].width) for size in others),
        *(Choice(default, w) for w in widths),
    )


def _sizes(layer: Layer, isa: Isa) -> dict[int, _Size]:
    """The products of each algorithm, the cost model's own first."""
    if layer.op in ("_QConv", "_QMatMul"):
        return _integer(layer, isa)
    if layer.op in ("MatMul", "Gemm"):
        return _product(layer, isa)
    if fast_conv(layer, isa) is None or layer.attrs.get("group", 1) != 1:
        return {}
    if narrow(layer, isa) > 1:
        return {}
    where = window_of(layer, layer.input(0).shape[2:], layer.input(1).shape[2:])
    plain = reads_plain(layer, isa)
    found = {0: _direct(layer, isa, where, plain=plain)}
    if _has_tiles(where) and not plain:
        for size in winograd.POINTS:
            found[size] = _tiles(layer, isa, size)
        default = winograd_size(layer, isa, where)
        found = {default: found[default], **found}
    return found


def _product(layer: Layer, isa: Isa) -> dict[int, _Size]:
    if fast_product(layer, isa) is None:
        return {}
    rows, pairs = _rows(layer), isa.bf16 and _packed(layer)
    levels = None if pairs else levels_of_layer(layer)
    if levels is not None and rows <= few_rows.MOST:
        return {}  # its tiles are not of this kind
    columns = -(-layer.output().shape[-1] // isa.lanes)
    kept = levels is not None or (not pairs and keeps_short(layer))
    most = widest(layer.input(0).shape[-1], isa.lanes) if kept else MAX_COLUMNS
    return {0: _Size(rows, columns, isa.registers, isa.name == "avx512" and not pairs, most)}


def _direct(layer: Layer, isa: Isa, where: Window, *, plain: bool) -> _Size:
    shape, pairs = layer.input(1).shape, isa.bf16 and not plain
    levels = None if pairs or (plain and where.dilations[1] != 1) else levels_of_layer(layer)
    most = MAX_COLUMNS if levels is None else widest(prod(shape[1:]), isa.lanes)
    embedded = isa.name == "avx512" and not pairs
    return _Size(_run(layer, where), -(-shape[0] // isa.lanes), isa.registers, embedded, most)


def _integer(layer: Layer, isa: Isa) -> dict[int, _Size]:
    if fast_integer(layer, isa) is None or layer.attrs.get("group", 1) != 1:
        return {}
    weights = layer.attrs["linear"].weights.shape
    columns = -(-weights[0] // isa.lanes)
    registers = REGISTERS if isa.name == "avx512" else isa.registers - PRODUCT
    if layer.op == "_QMatMul":
        return {0: _Size(layer.input(0).size // weights[1], columns, registers, False)}
    where = window_of(layer, layer.input(0).shape[2:], weights[2:])
    run = _run(layer, where, pictures=isa.name == "avx512")
    return {0: _Size(run, columns, registers, False)}


def _rows(layer: Layer) -> int:
    """Of one product: all of x0 where the weights are constant and packed."""
    x = layer.input(0)
    return x.size // x.shape[-1] if _packed(layer) else x.shape[-2]


def _packed(layer: Layer) -> bool:
    weights = layer.input(1)
    return weights.root.data is not None and len(weights.shape) == 2


def _run(layer: Layer, where: Window, *, pictures: bool = False) -> int:
    """Outputs that one product computes: an image of a pointwise convolution, else a row."""
    _, _, rows, out = layer.output().shape
    padded = any(where.begins) or any(where.ends)
    padded = padded or (pictures and layer.attrs["linear"].weights.shape[1] <= GROUP)
    whole = where.kernel == (1, 1) and where.strides == (1, 1) and not padded
    return rows * out if whole else out


def _has_tiles(where: Window) -> bool:
    return where.kernel == (3, 3) and where.strides == (1, 1) and where.dilations == (1, 1)


def _tiles(layer: Layer, isa: Isa, size: int) -> _Size:
    """The tiles of Winograd's algorithm that are computed at a time."""
    (_, inputs, _, _), (_, outputs, rows, out) = layer.input(0).shape, layer.output().shape
    lanes, levels = isa.lanes, levels_of_layer(layer)
    blocks, columns = (-(-n // lanes) * lanes for n in (inputs, outputs))
    tiles = -(-rows // size) * -(-out // size)
    count = winograd.chunk(tiles, blocks, columns, size, levels is not None)
    most = MAX_COLUMNS if levels is None else spread_winograd.widest(inputs, size, lanes)
    return _Size(count, columns // lanes, isa.registers, isa.name == "avx512", most)
