"""Which layout each tensor has: NCHWc where a fast kernel wants it, plain elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.program import Program


def assign(program: Program, isa: Isa) -> None:
    """Everything stays plain."""
    del program, isa


def prelude(isa: Isa) -> str:
    """Vector types and operations of the instruction set."""
    del isa
    return ""
