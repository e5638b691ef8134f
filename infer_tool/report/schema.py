"""The JSON schema of report.json, generated from the dataclasses of the report.

`python -m infer_tool.report.schema` writes `report.schema.json` beside this file; a test compares.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from infer_tool.engines.onnxruntime_kernels import Deployed
from infer_tool.report.model import SCHEMA, Report
from passes.base import Refusal
from quant.coverage import Coverage

FILE = Path(__file__).with_name("report.schema.json")
SIMPLE = {str: "string", int: "integer", bool: "boolean", NoneType: "null"}
# Fields of the report that hold what lower storeys define.
HELD: dict[str, Any] = {"coverage": Coverage | None, "deployed": Deployed | None}
TOOL = {
    "type": "object",
    "properties": {"name": {"const": "infertool"}, "version": {"type": "string"}},
    "required": ["name", "version"],
}
FAILURE = {
    "type": "object",
    "description": "A command that failed before it had a report.",
    "properties": {
        "schema": {"const": SCHEMA},
        "tool": TOOL,
        "command": {"type": "string"},
        "passed": {"const": False},
        "error": {
            "type": "object",
            "properties": {
                "kind": {"type": "string"},
                "message": {"type": "string"},
                "exit_code": {"enum": [*range(1, 8), 130]},
            },
            "required": ["kind", "message", "exit_code"],
        },
    },
    "required": ["schema", "tool", "command", "passed", "error"],
}


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a report, or of the document of a failure."""
    definitions: dict[str, Any] = {"Failure": FAILURE}
    _define(Report, definitions)
    report = definitions["Report"]
    report["properties"] |= {"schema": {"const": SCHEMA}, "tool": TOOL}
    report["required"] = sorted([*report["required"], "schema", "tool"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "infertool report",
        "anyOf": [{"$ref": "#/$defs/Report"}, {"$ref": "#/$defs/Failure"}],
        "$defs": dict(sorted(definitions.items())),
    }


def _define(kind: type, definitions: dict[str, Any]) -> None:
    if kind.__name__ in definitions:
        return
    definitions[kind.__name__] = {}  # types may refer to themselves
    hints = get_type_hints(kind) | (HELD if kind is Report else {})
    names = [f.name for f in fields(kind)]
    definitions[kind.__name__] = {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").split()),
        "properties": {name: _of(hints[name], definitions) for name in names},
        "required": sorted(names),
        "additionalProperties": False,
    }


def _of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return {"anyOf": [_of(a, definitions) for a in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        item = Refusal if arguments[0] is Any else arguments[0]
        return {"type": "array", "items": _of(item, definitions)}
    if origin is tuple:
        return {"type": "array", "prefixItems": [_of(a, definitions) for a in arguments],
                "minItems": len(arguments), "maxItems": len(arguments)}  # fmt: skip
    if origin is dict:
        value = arguments[1]
        return {"type": "object", "additionalProperties": _of(value, definitions)}
    if hint is float:
        return {"type": ["number", "null"]}  # NaN and infinity have no JSON
    if is_dataclass(hint):
        assert isinstance(hint, type)
        _define(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    return {} if hint is Any else {"type": SIMPLE[hint]}


def text() -> str:
    """What the file holds."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
