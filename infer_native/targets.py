"""Machines that emitted C is built for, by the names of `zig cc`."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_native.isa import runs_here
from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from infer_native.isa import Isa


@dataclass(frozen=True)
class Target:
    """A machine: its name, zig's triple, the instructions that all of its kind have."""

    name: str
    triple: str
    isa: str


TARGETS = {
    t.name: t
    for t in (
        Target("x86_64-linux", "x86_64-linux-musl", "sse"),
        Target("x86_64-windows", "x86_64-windows-gnu", "sse"),
        Target("x86_64-macos", "x86_64-macos", "sse"),
        Target("aarch64-linux", "aarch64-linux-musl", "neon"),
        Target("aarch64-macos", "aarch64-macos", "neon"),
        Target("armv7-linux", "arm-linux-musleabihf", "scalar"),
        Target("riscv64-linux", "riscv64-linux-musl", "scalar"),
        Target("wasm32-wasi", "wasm32-wasi", "scalar"),
    )
}


def find_target(name: str) -> Target | None:
    """The target of a name; None for this machine.

    Raises:
        UsageError: no such name.

    """
    if not name:
        return None
    if name not in TARGETS:
        raise UsageError(f"--target {name!r}: expected one of {', '.join(TARGETS)}")
    return TARGETS[name]


def can_run(target: Target | None, isa: Isa) -> bool:
    """Does code for the target and the instructions run on this machine?"""
    if not runs_here(isa):
        return False
    if target is None:
        return True
    system, machine = platform.system().lower(), platform.machine().lower()
    system = {"darwin": "macos"}.get(system, system)
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    return target.name == f"{machine}-{system}"
