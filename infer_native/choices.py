"""What there is to choose from for a layer: algorithms, and how many vectors wide its tiles are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_native.kernels import winograd
from infer_native.kernels.gemm import choose
from infer_native.kernels.geometry import window_of
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
    weights = layer.attrs["linear"].weights.shape if "linear" in layer.attrs else None
    shapes = [layer.input(0).shape, weights or layer.input(1).shape]
    given = [f"{n}={_joined(layer.attrs[n], ',')}" for n in _GEOMETRY if layer.attrs.get(n)]
    return " ".join([layer.op.strip("_"), *(_joined(s, "x") for s in shapes), *given])


def _joined(value: object, mark_: str) -> str:
    return mark_.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def candidates(layer: Layer, isa: Isa) -> tuple[Choice, ...]:
    """First what the cost model takes; empty for a layer without a product on vectors."""
    sizes = _sizes(layer, isa)
    if not sizes:
        return ()
    default, *others = sizes
    _, columns, _, _ = sizes[default]
    natural = _width(sizes[default])
    widths = [w for w in range(1, min(WIDEST, columns) + 1) if w != natural]
    return (
        Choice(default, natural),
        *(Choice(size, _width(sizes[size])) for size in others),
        *(Choice(default, w) for w in widths),
    )


def _width(size: tuple[int, int, int, bool]) -> int:
    return choose(*size)[0].columns


def _sizes(layer: Layer, isa: Isa) -> dict[int, tuple[int, int, int, bool]]:
    """Rows, columns, registers of the products of each algorithm, the cost model's own first."""
    if layer.op in ("_QConv", "_QMatMul"):
        return _integer(layer, isa)
    embedded = isa.name == "avx512"
    if layer.op in ("MatMul", "Gemm"):
        if fast_product(layer, isa) is None:
            return {}
        rows = _rows(layer)
        pairs = isa.bf16 and _packed(layer)
        columns = -(-layer.output().shape[-1] // isa.lanes)
        return {0: (rows, columns, isa.registers, embedded and not pairs)}
    if fast_conv(layer, isa) is None or layer.attrs.get("group", 1) != 1:
        return {}
    if narrow(layer, isa) > 1:
        return {}
    where = window_of(layer, layer.input(0).shape[2:], layer.input(1).shape[2:])
    columns = -(-layer.output().shape[1] // isa.lanes)
    plain = reads_plain(layer, isa)
    direct = embedded and (plain or not isa.bf16)
    found = {0: (_run(layer, where), columns, isa.registers, direct)}
    if _has_tiles(where) and not plain:
        for size in winograd.POINTS:
            found[size] = (_tiles(layer, isa, size), columns, isa.registers, embedded)
        default = winograd_size(layer, isa, where)
        found = {default: found[default], **found}
    return found


def _integer(layer: Layer, isa: Isa) -> dict[int, tuple[int, int, int, bool]]:
    if fast_integer(layer, isa) is None or layer.attrs.get("group", 1) != 1:
        return {}
    weights = layer.attrs["linear"].weights.shape
    columns = -(-weights[0] // isa.lanes)
    registers = REGISTERS if isa.name == "avx512" else isa.registers - PRODUCT
    if layer.op == "_QMatMul":
        return {0: (layer.input(0).size // weights[1], columns, registers, False)}
    where = window_of(layer, layer.input(0).shape[2:], weights[2:])
    return {0: (_run(layer, where, pictures=isa.name == "avx512"), columns, registers, False)}


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


def _tiles(layer: Layer, isa: Isa, size: int) -> int:
    """Tiles of Winograd's algorithm that are computed at a time."""
    (_, inputs, _, _), (_, outputs, rows, out) = layer.input(0).shape, layer.output().shape
    blocks, columns = (-(-n // isa.lanes) * isa.lanes for n in (inputs, outputs))
    return winograd.chunk(-(-rows // size) * -(-out // size), blocks, columns, size)
