"""FakePalette: each weight becomes the nearest value of a table, in one operator with gradients.

Like FakeQuantize it exists while a model is trained. Backward the choice counts as the identity:
every weight feels what its value does, keeps its own number, and may change its cluster; the table
follows its members (`quant.cluster`), so that a value moves by the mean of their gradients, the
grouped gradient of Han et al. 2016, "Deep Compression", section 3.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from infer_runtime.registry import op
from quant.formats.palette import entries, nearest
from quant.train.extra import import_torch
from quant.train.fake import NO_AXIS, TRAIN_DOMAIN

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

FAKE_PALETTE = "FakePalette"


@op(FAKE_PALETTE, domain=TRAIN_DOMAIN)
def fake_palette(x: Array, table: Array, *, axis: int = NO_AXIS) -> Array:
    """The nearest value of a sorted table [k], or of [channels, k] along `axis`; ties go down."""
    along = None if axis == NO_AXIS else axis
    return entries(nearest(x, table, along), table, along)


@op(FAKE_PALETTE, domain=TRAIN_DOMAIN, library="torch")
def fake_palette_torch(x: Any, table: Any, *, axis: int = NO_AXIS) -> Any:
    """The same on tensors, with gradients to x."""
    return _function().apply(x, table, axis)


def as_rows(x: Any, axis: int) -> Any:
    """A tensor as [tables, weights of each]."""
    return x.reshape(1, -1) if axis == NO_AXIS else x.movedim(axis, 0).reshape(x.shape[axis], -1)


def codes_of(rows: Any, table: Any) -> Any:
    """The numbers of the nearest entries, by the same arithmetic as `PaletteFormat.quantize`."""
    torch = import_torch()
    middles = (table[:, 1:].double() + table[:, :-1]) / 2
    return torch.searchsorted(middles, rows.double().contiguous())


@cache
def _function() -> Any:
    """The function of torch; made when it is first needed, as torch is optional."""
    torch = import_torch()

    class Fake(torch.autograd.Function):  # type: ignore[misc, name-defined, no-untyped-call, unused-ignore]
        @staticmethod
        def forward(context: Any, x: Any, table: Any, axis: int) -> Any:
            del context
            rows, tables = as_rows(x, axis), as_rows(table, NO_AXIS if axis == NO_AXIS else 0)
            found = tables.gather(1, codes_of(rows, tables))
            if axis == NO_AXIS:
                return found.reshape(x.shape)
            moved = [x.shape[axis], *(d for i, d in enumerate(x.shape) if i != axis)]
            return found.reshape(moved).movedim(0, axis)

        @staticmethod
        def backward(context: Any, *gradients: Any) -> Any:
            del context
            return gradients[0], None, None

    return Fake
