"""Recipes for pydantic: made of the options of the commands, so that there is one definition.

`python -m infer_tool.recipe.schema` writes `recipe.schema.json` beside this file, for editors; a
test compares.
"""

from __future__ import annotations

import json
import typing
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from infer_tool.recipe.model import Shared, stage_commands, stage_fields

if TYPE_CHECKING:
    import dataclasses
    from collections.abc import Iterable

FILE = Path(__file__).with_name("recipe.schema.json")
_STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
_ONE = ConfigDict(
    extra="forbid", json_schema_extra={"type": "object", "minProperties": 1, "maxProperties": 1}
)


@cache
def document() -> type[BaseModel]:
    """The model of a whole recipe."""
    commands = {name: _of(name.title(), kind, stage_fields(kind)) for name, kind in
                stage_commands().items()}  # fmt: skip
    described = {n: Field(None, description=m.__doc__) for n, m in commands.items()}
    choices: Any = {n: (m | None, described[n]) for n, m in commands.items()}
    stage = create_model("Stage", __config__=_ONE, **choices)
    stages: Any = {"stages": (list[stage], Field(min_length=1, description="In this order."))}  # type: ignore[valid-type]
    shared = _definitions(Shared, fields(Shared))
    return create_model("Recipe", __config__=_STRICT, **shared, **stages)


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a recipe."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return head | document().model_json_schema() | {"title": "infertool recipe"}


def to_text() -> str:
    """The content of `recipe.schema.json`."""
    return json.dumps(schema(), indent=1) + "\n"


def _of(name: str, kind: type, options: Iterable[dataclasses.Field[Any]]) -> type[BaseModel]:
    found: Any = _definitions(kind, options)
    return create_model(name, __config__=_STRICT, __doc__=kind.__doc__, **found)


def _definitions(kind: type, options: Iterable[dataclasses.Field[Any]]) -> dict[str, Any]:
    """Type and constraints of each option, under its name on the command line."""
    hints = typing.get_type_hints(kind)
    return {f.name: (hints[f.name], _field(f)) for f in options}


def _field(option: dataclasses.Field[Any]) -> Any:
    default = ... if option.default is MISSING else option.default
    return Field(
        default,
        alias=option.name.replace("_", "-"),
        description=option.metadata.get("help"),
        ge=option.metadata.get("min"),
        le=option.metadata.get("max"),
    )


if __name__ == "__main__":
    FILE.write_text(to_text(), encoding="utf-8")
