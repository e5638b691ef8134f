"""A recipe's file: YAML, checked key by key; every complaint names file and line."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from infer_tool.recipe.model import Recipe, Shared, StageOf, stage_commands, stage_fields

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from yaml import Node

LARGEST = 1 << 20  # bytes
DEEPEST = 16


def read_recipe(path: Path) -> Recipe:
    """Read and check.

    Raises:
        UsageError: no such file, no YAML, a key that is unknown or missing, a value that is wrong.

    """
    from pydantic import ValidationError

    from infer_tool.recipe.schema import document

    node, content = _parsed(path)
    try:
        checked = document().model_validate(content)
    except ValidationError as error:
        raise _complaint(path, node, content, error.errors()[0]) from error
    given = checked.model_dump(exclude_unset=True)
    stages = [_stage(path, node, n, stage) for n, stage in enumerate(given.pop("stages"))]
    return Recipe(str(path), Shared(**given), tuple(stages))


def _parsed(path: Path) -> tuple[Node, Any]:
    import yaml

    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path}: too large for a recipe")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a recipe: no UTF-8 text") from error
    try:
        _check_size(path, text)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise UsageError(f"{path}: empty; a recipe has source, output and stages")
        _check_keys(path, node)
        return node, loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{where}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {str(error).splitlines()[0]}") from error


def _check_size(path: Path, text: str) -> None:
    """A few lines with aliases can stand for gigabytes, and brackets in brackets take minutes."""
    import yaml

    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = event.start_mark.line + 1
            raise UsageError(f"{path}:{line}: nested too deeply for a recipe")
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise UsageError(f"{path}:{line}: aliases (*{event.anchor}) have no place in a recipe")


def _check_keys(path: Path, node: Node) -> None:
    """YAML keeps the last of two equal keys; a recipe must not have two."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_keys(path, child)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise UsageError(f"{path}:{_line(key)}: {key.value!r} is given twice")
        seen.add(key.value)
        _check_keys(path, value)


def _stage(path: Path, node: Node, number: int, stage: dict[str, Any]) -> StageOf:
    where = _node_at(node, ("stages", number))
    if len(stage) != 1:
        raise UsageError(f"{path}:{_line(where)}: a stage is one command, found {len(stage)}")
    ((command, options),) = stage.items()
    return StageOf(command, options or {}, _line(where))


def _complaint(path: Path, node: Node, content: Any, error: Any) -> UsageError:
    """What pydantic found first, in a line that names the place and the fix."""
    where: tuple[Any, ...] = error["loc"]
    name = ".".join(str(part + 1 if isinstance(part, int) else part) for part in where)
    message = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] == "extra_forbidden":
        known = _known(where[:-1])
        close = get_close_matches(str(where[-1]), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
        message = f"unknown key{hint}"
    elif error["type"] == "missing":
        message = "is missing"
    if not isinstance(content, dict):
        name, message = "recipe", "expected keys and values: source, output, stages"
    return UsageError(f"{path}:{_line(_node_at(node, where))}: {name}: {message}")


def _known(where: Sequence[Any]) -> list[str]:
    """The keys that may stand at a place: of the recipe, of a stage, of a command."""
    from dataclasses import fields

    if not where:
        return [f.name.replace("_", "-") for f in fields(Shared)] + ["stages"]
    if isinstance(where[-1], int):
        return list(stage_commands())
    return [f.name.replace("_", "-") for f in stage_fields(stage_commands()[where[-1]])]


def _node_at(node: Node, where: Sequence[Any]) -> Node:
    """The part of the document at a path, or the last one on the way that is there."""
    import yaml

    for part in where:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == part), None)
        elif isinstance(node, yaml.SequenceNode) and part in range(len(node.value)):
            found = (None, node.value[part])
        else:
            found = None
        if found is None:
            return node
        node = found[0] if part == where[-1] and found[0] is not None else found[1]
    return node


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
