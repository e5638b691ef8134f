"""Saved models of Paddle before Paddle sees them: damage, and operators that act on files.

A program lies in JSON (since Paddle 3) or in a protobuf (framework.proto); the parameters beside it
are one tensor after the other, which Paddle reads without noticing where the file ends.
"""

from __future__ import annotations

import json
import re
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from infer_runtime.errors import ModelError, UnsupportedOpError
from infer_tool.importers.wire import WireError, fields, messages, text

if TYPE_CHECKING:
    from collections.abc import Iterator

PARAMETERS = ".pdiparams"
MODELS = (".json", ".pdmodel")
BLOCKS, VARIABLES, OPS = 1, 3, 4
VARIABLE_NAME, PERSISTABLE, OP_TYPE = 1, 3, 3
DATA_TYPE, DIMENSIONS = 1, 2
SIZES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16}  # VarType
PARAMETER = "p"  # the operator of a parameter in JSON
ENDS = {"feed", "fetch"}  # variables that persist without being parameters
ACTING = re.compile(r"(?:.*\.)?(save|save_combine|load|load_combine|py_func|py_layer|read_file)_?")


def model_file(source: str) -> Path:
    """The program of a model, whose parameters must lie beside it.

    Raises:
        ModelError: there is not exactly one, or its parameters are missing.

    """
    path = Path(source)
    if path.is_dir():
        found = [p.with_suffix(s) for p in sorted(path.glob(f"*{PARAMETERS}")) for s in MODELS]
        found = [p for p in found if p.is_file()]
        if len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise ModelError(f"{source}: holds several models or none ({names}); name its file")
        path = found[0]
    if not path.with_suffix(PARAMETERS).is_file():
        raise ModelError(f"{source}: {path.stem}{PARAMETERS} is missing; put it beside the model")
    return path


def screen(source: str) -> None:
    """Raise for a model that Paddle should not load.

    Raises:
        ModelError: damaged.
        UnsupportedOpError: naming an operator that reads or writes files or calls code.

    """
    path = model_file(source)
    content = path.read_bytes()
    try:
        names, parameters = (_json if content.lstrip()[:1] == b"{" else _proto)(content)
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, WireError) else "no JSON"
        raise ModelError(f"{source}: is damaged: {why}; copy it again") from error
    for name in names:
        if ACTING.fullmatch(name):
            raise UnsupportedOpError(f"{source}: acts on files or calls code: {name}")
    found = _count_tensors(source, path.with_suffix(PARAMETERS))
    if found != parameters:
        raise ModelError(
            f"{source}: {path.stem}{PARAMETERS} holds {found} parameters, the model has "
            f"{parameters}; copy both again"
        )


def _proto(content: bytes) -> tuple[list[str], int]:
    """Types of the operators, and how many parameters there are."""
    whole = memoryview(content)
    variables = messages(whole, BLOCKS, VARIABLES)
    kept = {text(v, VARIABLE_NAME) for v in variables if (PERSISTABLE, 1) in fields(v)}
    return [text(op, OP_TYPE) for op in messages(whole, BLOCKS, OPS)], len(kept - ENDS)


def _json(content: bytes) -> tuple[list[str], int]:
    names = list(_json_ops(json.loads(content)))
    return names, names.count(PARAMETER)


def _json_ops(document: object) -> Iterator[str]:
    rest = [document]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            name = value.get("#")
            if isinstance(name, str):
                yield name
            rest.extend(value.values())
        elif isinstance(value, list):
            rest.extend(value)


def _count_tensors(source: str, path: Path) -> int:
    """Walk from tensor to tensor; each has a version, levels of detail, a description, its data."""
    end, position, count = path.stat().st_size, 0, 0
    with path.open("rb") as handle:

        def number(size: int) -> int:
            return int.from_bytes(handle.read(size), "little")

        while position < end:
            version, levels = number(4), number(8)
            size = -1
            if not version and not levels and not number(4):
                description = memoryview(handle.read(min(number(4), end)))
                size = _data_size(description)
            position = handle.tell() + size
            if size < 0 or position > end:
                raise ModelError(f"{source}: {path.name} is damaged; copy it again")
            handle.seek(position)
            count += 1
    return count


def _data_size(description: memoryview) -> int:
    """Bytes of a tensor, -1 for one that Paddle does not write."""
    try:
        found = list(fields(description))
    except WireError:
        return -1
    width = next((SIZES.get(v, -1) for n, v in found if n == DATA_TYPE and isinstance(v, int)), -1)
    sizes = [v for n, v in found if n == DIMENSIONS and isinstance(v, int)]
    return prod(sizes, start=width) if width > 0 else -1
