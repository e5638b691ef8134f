"""Channels last and channels first, and what SAME padding means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call

# By rank: the permutation from channels last to channels second, and back.
TO_FIRST = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}
TO_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
SAME, VALID = 0, 1


def spatial_padding(
    c: Call, x: ir.Value, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> dict[str, Any]:
    """The attribute for the padding of a window over `x`, which has channels second.

    SAME gives ceil(size / stride) outputs, with the odd element of the padding at the end. It
    stays symbolic where the size is known only when the model runs.

    Raises:
        ModelError: the window or its steps are not positive, or the padding is unknown.

    """
    if min(*kernel, *strides, *dilations) < 1:
        raise ModelError(f"{c} has a window {list(kernel)} with steps {list(strides)}")
    kind = c.options.integer("padding")
    if kind == VALID:
        return {"pads": [0] * 2 * len(kernel)}
    if kind != SAME:
        raise ModelError(f"{c} has padding {kind}, which is not known")
    sizes = c.sizes(x)[2:]
    totals = [
        None if size is None else _total(size, width, step, dilation)
        for size, width, step, dilation in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    known = [t for t in totals if t is not None]
    if len(known) < len(totals):
        return {"auto_pad": "SAME_UPPER"}
    return {"pads": [t // 2 for t in known] + [t - t // 2 for t in known]}


def _total(size: int, width: int, step: int, dilation: int) -> int:
    count = -(-size // step)
    return max((count - 1) * step + (width - 1) * dilation + 1 - size, 0)
