"""Convolutions. TFLite keeps channels last and pads SAME by the size of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_tool.importers.tflite.layout import TO_FIRST, TO_LAST, spatial_padding
from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call

_OHWI_TO_OIHW = (0, 3, 1, 2)
_1HWO_TO_O1HW = (3, 0, 1, 2)
_OHWI_TO_IOHW = (3, 0, 1, 2)
_DHWIO_TO_OIDHW = (4, 3, 0, 1, 2)
_DHWOI_TO_IODHW = (4, 3, 0, 1, 2)


@op("CONV_2D")
def conv_2d(c: Call) -> None:
    """Weights are [out, height, width, in / groups]."""
    x, weight = c.real(0, TO_FIRST[4]), c.real(1, _OHWI_TO_OIHW)
    channels, part = c.sizes(x)[1], c.sizes(weight)[1]
    if not channels or not part or channels % part:
        raise c.unsupported(f"{channels} channels in groups of {part}")
    _convolve(c, x, weight, ("h", "w"), channels // part)


@op("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(c: Call) -> None:
    """Weights are [1, height, width, channels * multiplier]."""
    x, weight = c.real(0, TO_FIRST[4]), c.real(1, _1HWO_TO_O1HW)
    channels = c.sizes(x)[1]
    if not channels:
        raise c.unsupported("its number of channels is not known")
    _convolve(c, x, weight, ("h", "w"), channels)


@op("CONV_3D")
def conv_3d(c: Call) -> None:
    """Weights are [depth, height, width, in, out]."""
    x, weight = c.real(0, TO_FIRST[5]), c.real(1, _DHWIO_TO_OIDHW)
    _convolve(c, x, weight, ("d", "h", "w"), 1)


def _convolve(c: Call, x: ir.Value, weight: ir.Value, axes: tuple[str, ...], group: int) -> None:
    strides = [c.options.integer(f"stride_{a}") for a in axes]
    # Files from before dilations existed hold zeros.
    dilations = [max(c.options.integer(f"dilation_{a}"), 1) for a in axes]
    kernel = [s or 0 for s in c.sizes(weight)[2:]]
    attributes: dict[str, Any] = {
        "kernel_shape": kernel, "strides": strides, "dilations": dilations, "group": group,
        **spatial_padding(c, x, kernel, strides, dilations),
    }  # fmt: skip
    y = c.emit("Conv", x, weight, c.optional(2), **attributes)
    c.put(c.activated(y), perm=TO_LAST[2 + len(axes)])


@op("TRANSPOSE_CONV")
def transpose_conv(c: Call) -> None:
    """Inputs: shape of the output, weights [out, height, width, in], values, bias."""
    weight, x = c.real(1, _OHWI_TO_IOHW), c.real(2, TO_FIRST[4])
    _spread(c, weight, x, c.partly(0)[1:3], ("h", "w"))


@op("CONV_3D_TRANSPOSE")
def conv_3d_transpose(c: Call) -> None:
    """Inputs: shape of the output, weights [depth, height, width, out, in], values, bias."""
    weight, x = c.real(1, _DHWOI_TO_IODHW), c.real(2, TO_FIRST[5])
    _spread(c, weight, x, c.partly(0)[1:4], ("d", "h", "w"))


def _spread(
    c: Call, weight: ir.Value, x: ir.Value, sizes: list[int | None], axes: tuple[str, ...]
) -> None:
    """The forward convolution's padding, seen from its output: cut off, or added at the end."""
    strides = [c.options.integer(f"stride_{a}") for a in axes]
    kernel, inputs = c.sizes(weight)[2:], c.sizes(x)[2:]
    begins, ends, extra = [], [], []
    for size, step, width, count in zip(sizes, strides, kernel, inputs, strict=True):
        if size is None or width is None or count is None:
            raise c.unsupported("its size is not known")
        cut = (count - 1) * step + width - size
        begins.append(max(cut, 0) // 2)
        ends.append(max(cut, 0) - max(cut, 0) // 2)
        extra.append(max(-cut, 0))
    y = c.emit(
        "ConvTranspose", x, weight, c.optional(3),
        kernel_shape=kernel, strides=strides, pads=begins + ends, output_padding=extra,
    )  # fmt: skip
    c.put(c.activated(y), perm=TO_LAST[2 + len(axes)])
