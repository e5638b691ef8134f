"""Is a source too large for this machine? Asked before anything of it is read."""

from __future__ import annotations

from infer_runtime.arrays import machine_memory
from infer_runtime.errors import LimitError

COPIES = 3  # of the weights while a framework converts: its own, the exporter's, the folded ones
GIGA = 1e9


def check_memory(source: str, weights: int) -> None:
    """Raise LimitError where the conversion needs more than the machine has.

    Args:
        source: what the user called it.
        weights: bytes on disk.

    """
    here = machine_memory()
    if weights * COPIES > here:
        raise LimitError(
            f"{source}: {weights / GIGA:.1f} GB of weights take about "
            f"{weights * COPIES / GIGA:.0f} GB to convert, this machine has {here / GIGA:.0f} GB; "
            "import it on a larger one, or in parts with --submodule"
        )
