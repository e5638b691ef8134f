"""Samples for calibration and evaluation."""

from __future__ import annotations

from infer_tool.data.dataset import Dataset, synthetic_dataset
from infer_tool.data.function import load_function
from infer_tool.data.open import open_dataset

__all__ = ["Dataset", "load_function", "open_dataset", "synthetic_dataset"]
