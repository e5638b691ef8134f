"""Instruction sets: what differs between them is this table, not the kernels."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from pathlib import Path

from infer_runtime.errors import UsageError


@dataclass(frozen=True)
class Isa:
    """An instruction set.

    `lanes` are the floats of a vector, 0 where only scalar code is emitted; `registers` the vectors
    that the processor holds; `flags` what gcc and clang need; `needs` the features in
    /proc/cpuinfo that a machine must have to run the code. With `bf16` products of constant
    weights round both factors to bfloat16 and add up in float32.
    """

    name: str
    family: str
    lanes: int
    registers: int
    flags: tuple[str, ...]
    needs: tuple[str, ...] = ()
    bf16: bool = False

    @property
    def label(self) -> str:
        """The name, and what else the code needs."""
        return f"{self.name}+bf16" if self.bf16 else self.name


ISAS = {
    isa.name: isa
    for isa in (
        Isa("scalar", "", 0, 16, ()),
        # One register of sse is where a product lies before it is added.
        Isa("sse", "x86", 4, 15, ("-msse4.1",), ("sse4_1",)),
        Isa("avx2", "x86", 8, 16, ("-mavx2", "-mfma"), ("avx2", "fma")),
        Isa(
            "avx512",
            "x86",
            16,
            32,
            ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni",
             "-mavx512vbmi", "-mavx512vpopcntdq", "-mavx2", "-mfma", "-mprefer-vector-width=512"),
            ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512vbmi",
             "avx512_vpopcntdq"),
        ),
        Isa("neon", "arm", 4, 32, (), ("asimd",)),
        Isa("dotprod", "arm", 4, 32, (), ("asimd", "asimddp")),
    )
}  # fmt: skip


def find_isa(name: str) -> Isa:
    """The instruction set of a name; 'auto' is the best one of this machine.

    Raises:
        UsageError: no such name.

    """
    if name == "auto":
        return best_here()
    if name not in ISAS:
        raise UsageError(f"--isa {name!r}: expected one of auto, {', '.join(ISAS)}")
    return ISAS[name]


PRECISIONS = ("fp32", "bf16")


def at_precision(isa: Isa, precision: str) -> Isa:
    """The instruction set with products of that precision.

    Raises:
        UsageError: no such precision, or no instruction for it.

    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if precision == "fp32":
        return isa
    if isa.name != "avx512":
        raise UsageError(
            f"--precision bf16: --isa {isa.name} has no product of bfloat16 numbers; give "
            "--isa avx512, whose code then needs avx512_bf16"
        )
    flags, needs = (*isa.flags, "-mavx512bf16"), (*isa.needs, "avx512_bf16")
    return replace(isa, flags=flags, needs=needs, bf16=True)


def best_here() -> Isa:
    """The widest instruction set that this machine runs."""
    return max((i for i in ISAS.values() if runs_here(i)), key=lambda i: i.lanes)


def runs_here(isa: Isa) -> bool:
    """Does this machine have what the code needs?"""
    machine = platform.machine().lower()
    family = (
        "x86"
        if machine in ("x86_64", "amd64")
        else "arm"
        if machine in ("aarch64", "arm64")
        else ""
    )
    if not isa.family:
        return True
    if isa.family != family:
        return False
    return isa.name == "neon" or set(isa.needs) <= _features()


def _features() -> set[str]:
    """Features of the first processor; none where the system does not tell."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return set()
    for line in info.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()
