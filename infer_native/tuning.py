"""The record of a measurement: which choice each layer gets, and the microseconds of all.

The file is JSON: {"schema": 1, "isa", "compiler", "layers": {geometry: {"choice", "microseconds":
{choice: time of one call}}}}. Emission reads nothing but the choices: the same model and the same
record give the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from infer_native.choices import parsed
from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from infer_native.choices import Choice
    from infer_native.isa import Isa

SCHEMA = 1


@dataclass(frozen=True)
class Measured:
    """Of one geometry: the choice, and the median microseconds of a call by choice."""

    choice: str
    microseconds: dict[str, float]


@dataclass(frozen=True)
class Tuning:
    """Of one set of instructions and one compiler."""

    isa: str
    compiler: str
    layers: dict[str, Measured]

    def text(self) -> str:
        """The file; `read_tuning` gives the same back."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"

    def pick(self, key: str, options: tuple[Choice, ...]) -> Choice:
        """The recorded choice of a geometry, the cost model's where it was not measured.

        Raises:
            UsageError: the layer has no such choice.

        """
        found = self.layers.get(key)
        if found is None:
            return options[0]
        for option in options:
            if str(option) == found.choice:
                return option
        known = ", ".join(map(str, options))
        raise UsageError(f"--tuning: layer {key!r} has no {found.choice!r}; it has {known}")


def read_tuning(path: Path, isa: Isa) -> Tuning:
    """A record from a file.

    Raises:
        UsageError: it cannot be read, is no record, or is one of other instructions.

    """
    try:
        tuning = _parsed(json.loads(path.read_text()))
    except OSError as error:
        raise UsageError(f"--tuning {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--tuning {path}: is no record of convert --tune: {error}") from error
    if tuning.isa != isa.label:
        raise UsageError(
            f"--tuning {path}: was measured with {tuning.isa}, this is {isa.label}; "
            "give --isa and --precision of the record, or tune again"
        )
    return tuning


def _parsed(data: Any) -> Tuning:
    """A record from JSON; ValueError says what is wrong."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"expected an object with schema {SCHEMA}")
    if data.keys() != {"schema", "isa", "compiler", "layers"}:
        raise ValueError("expected the keys schema, isa, compiler, layers")
    isa, compiler, layers = data["isa"], data["compiler"], data["layers"]
    kinds = isinstance(isa, str), isinstance(compiler, str), isinstance(layers, dict)
    if not all(kinds):
        raise ValueError("isa and compiler are texts, layers is an object")
    return Tuning(isa, compiler, {key: _measured(key, layer) for key, layer in layers.items()})


def _measured(key: str, layer: Any) -> Measured:
    if not isinstance(layer, dict) or layer.keys() != {"choice", "microseconds"}:
        raise ValueError(f"layer {key!r}: expected the keys choice, microseconds")
    choice, times = layer["choice"], layer["microseconds"]
    if not isinstance(choice, str) or parsed(choice) is None:
        raise ValueError(f"layer {key!r}: {choice!r} is no choice, like 'direct/2'")
    numbers = isinstance(times, dict) and all(
        isinstance(t, (int, float)) and not isinstance(t, bool) and 0 <= t < float("inf")
        for t in times.values()
    )
    if not numbers or choice not in times:
        raise ValueError(f"layer {key!r}: microseconds has no numbers for the choices")
    return Measured(choice, {str(name): float(t) for name, t in times.items()})
