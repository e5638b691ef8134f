"""Formats: how real numbers are stored. A format is two pure array functions."""

from __future__ import annotations

from quant.formats.integer import INT8, INT32, UINT8, IntegerFormat

__all__ = ["INT8", "INT32", "UINT8", "IntegerFormat"]
