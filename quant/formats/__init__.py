"""Formats: how real numbers are stored. A format is two pure array functions."""

from __future__ import annotations

from quant.formats.floating import BF16, FP8_E4M3, FP8_E5M2, FP16, FloatFormat
from quant.formats.integer import (
    INT2,
    INT3,
    INT4,
    INT8,
    INT16,
    INT32,
    REDUCED_INT8,
    UINT2,
    UINT3,
    UINT4,
    UINT8,
    UINT16,
    IntegerFormat,
    integer_format,
)
from quant.formats.palette import PALETTES, PaletteFormat

Format = IntegerFormat | FloatFormat | PaletteFormat

# What weights and activations can be stored in, by the names that options use.
_ALL: tuple[Format, ...] = (
    INT16, UINT16, INT8, UINT8, INT4, UINT4, INT3, UINT3, INT2, UINT2,
    FP16, BF16, FP8_E4M3, FP8_E5M2, *PALETTES,
)  # fmt: skip
FORMATS: dict[str, Format] = {form.name: form for form in _ALL}

__all__ = [
    "BF16",
    "FORMATS",
    "FP8_E4M3",
    "FP8_E5M2",
    "FP16",
    "INT2",
    "INT3",
    "INT4",
    "INT8",
    "INT16",
    "INT32",
    "PALETTES",
    "REDUCED_INT8",
    "UINT2",
    "UINT3",
    "UINT4",
    "UINT8",
    "UINT16",
    "FloatFormat",
    "Format",
    "IntegerFormat",
    "PaletteFormat",
    "integer_format",
]  # fmt: skip
