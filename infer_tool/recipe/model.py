"""What a recipe holds: what all stages share, the stages in order, the limits of the result."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from infer_tool.config import (
    COMMANDS,
    Data,
    DropGate,
    Evaluated,
    ImportOptions,
    Output,
    Shapes,
    SizeGate,
    Talk,
    Timing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from dataclasses import Field


@dataclass(frozen=True, kw_only=True)
class Shared(ImportOptions, Shapes, Data, Evaluated, DropGate, Timing):
    """The keys of a recipe beside its stages.

    A stage takes each of them that is an option of its own, but for limits and timing, which are
    for the end, and those of the import, which are for the source.
    """

    source: str = field(metadata={"help": "The model to start from: any source of convert."})
    output: str = field(
        metadata={"help": "The file to write. Written only after every stage and check passed."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of every random choice.", "min": 0})


@dataclass(frozen=True)
class StageOf:
    """One stage: a command, its options, and the line of the recipe where it is."""

    command: str
    options: dict[str, Any]
    line: int


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read and found good."""

    path: str
    shared: Shared
    stages: tuple[StageOf, ...]


def stage_commands() -> dict[str, type[Talk]]:
    """The commands that may be stages: those that make a model of a model."""
    return {name: kind for name, kind in COMMANDS.items() if issubclass(kind, Output)}


def stage_fields(kind: type[Talk]) -> Iterator[Field[Any]]:
    """The options that a stage may have: neither files nor how the command answers."""
    others = {f.name for part in (Talk, Output) for f in fields(part)}
    for f in fields(kind):
        if f.name not in others and not f.metadata.get("positional"):
            yield f


def shared_options(shared: Shared, kind: type[Talk], *, first: bool) -> dict[str, Any]:
    """What a stage takes from the keys beside the stages, where they are not the default."""
    kept = {"runs", *(f.name for part in (SizeGate, DropGate) for f in fields(part))}
    if not first:
        kept |= {f.name for f in fields(ImportOptions)}
    own = {f.name for f in stage_fields(kind)} - kept
    return {
        f.name: getattr(shared, f.name)
        for f in fields(shared)
        if f.name in own and f.default is not MISSING and getattr(shared, f.name) != f.default
    }
