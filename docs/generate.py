"""The pages of docs/reference, from the code that they describe."""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from infer_runtime import errors
from infer_runtime.registry import has_gradients, known_ops
from infer_tool.config import COMMANDS
from infer_tool.engines import ENGINES
from infer_tool.importers.formats import FORMATS
from infer_tool.report.schema import schema
from passes.default import PASSES
from quant.config import Scheme
from quant.formats import FORMATS as NUMBER_FORMATS

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "<!-- made by docs/generate.py; change the code instead -->\n\n"


def write_reference(folder: Path) -> None:
    """Write every page; those that are the same stay untouched, so that builds are quick."""
    folder.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        text = HEAD + make()
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def commands() -> str:
    """Every command and its options."""
    return "# Commands\n\n" + "\n".join(_command(name, kind) for name, kind in COMMANDS.items())


def _command(name: str, kind: type) -> str:
    hints = typing.get_type_hints(kind)
    rows = [
        [_flags(f), _default(f), str(f.metadata.get("help", ""))]
        for f in sorted(fields(kind), key=lambda f: (not f.metadata.get("positional"), f.name))
        if hints
    ]
    return f"## {name}\n\n{kind.__doc__}\n\n{_table(['option', 'default', 'meaning'], rows)}"


def _flags(option: Any) -> str:
    if option.metadata.get("positional"):
        return f"`{option.name.upper()}`"
    flags = option.metadata.get("flags") or (f"--{option.name.replace('_', '-')}",)
    metavar = option.metadata.get("metavar")
    return ", ".join(f"`{flag}`" for flag in flags) + (f" `{metavar}`" if metavar else "")


def _default(option: Any) -> str:
    if option.default is MISSING:
        return "required"
    empty = option.default in (None, "", (), False)
    return "" if empty else f"`{option.default}`"


def exit_status() -> str:
    """The documented statuses, from the classes of errors."""
    rows = [["0", "every check passed and the file is written"]]
    found: dict[int, list[str]] = {}
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.InferError) and kind is not errors.InferError and kind.__doc__:
            found.setdefault(kind.exit_code, []).append(kind.__doc__.splitlines()[0])
    rows += [[str(code), " ".join(texts)] for code, texts in sorted(found.items())]
    rows.append([str(errors.InferError.exit_code), "Internal error: please report it."])
    rows.append(["130", "Interrupted; nothing was written."])
    return "# Exit status\n\n" + _table(["status", "meaning"], rows)


def passes() -> str:
    """Every pass in the order of the pipeline, with its Given and Result."""
    parts = []
    for each in dict.fromkeys(type(p) for p in PASSES):
        text = inspect.cleandoc(each.__doc__ or "")
        parts.append(f"## {each.name}\n\nLevel {each.level}.\n\n```text\n{text}\n```\n")
    return "# Passes\n\nIn the order in which they run.\n\n" + "\n".join(parts)


def operators() -> str:
    """The operators with a kernel of our own."""
    rows = [
        [f"`{domain}::{name}`" if domain else f"`{name}`",
         "yes" if has_gradients(domain, name) else "no"]
        for domain, name in known_ops()
    ]  # fmt: skip
    head = "# Operators of the reference runtime\n\nOthers are computed by the onnx package.\n\n"
    return head + _table(["operator", "gradients through torch"], rows)


def sources() -> str:
    """Sources and engines."""
    rows = [[f.title, f.recognised, ", ".join(f.packages) or "nothing"] for f in FORMATS.values()]
    engines = [[f"`{n}`", k.reads, f"`infertool[{k.extra}]`" if k.extra else "nothing"]
               for n, k in ENGINES.items()]  # fmt: skip
    return (
        "# Sources and engines\n\n## Sources\n\n"
        + _table(["source", "recognised by", "needs"], rows)
        + "\n## Engines\n\n"
        + _table(["engine", "reads", "needs"], engines)
    )


def number_formats() -> str:
    """What weights and activations are stored in, by family, and the schemes made of them."""
    families: dict[type, list[Any]] = {}
    for each in NUMBER_FORMATS.values():
        families.setdefault(type(each), []).append(each)
    parts = [
        "# Number formats\n\nA format is two pure array functions, `quantize` and `dequantize`.\n"
    ]
    for family, members in families.items():
        rows = [[f"`{each.name}`", str(each.bits)] for each in members]
        text = inspect.cleandoc(family.__doc__ or "")
        rounding = inspect.cleandoc(family.quantize.__doc__ or "")
        table = _table(["format", "bits of a level"], rows)
        parts.append(f"## {family.__name__}\n\n{text}\n\n```text\n{rounding}\n```\n\n{table}")
    names = ", ".join(f"`{name}`" for name in typing.get_args(Scheme))
    return "\n".join([*parts, f"## Schemes\n\n`quantize --scheme` takes {names}.\n"])


def report() -> str:
    """The schema of report.json, a table for each object."""
    parts = [
        "# report.json\n\nThe schema is in the package: `infer_tool/report/report.schema.json`.\n"
    ]
    for name, body in schema()["$defs"].items():
        rows = [[f"`{key}`", _kind(value)] for key, value in sorted(body["properties"].items())]
        parts.append(f"## {name}\n\n{body['description']}\n\n{_table(['field', 'type'], rows)}")
    return "\n".join(parts)


def _kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(_kind(v) for v in value["anyOf"])
    if "items" in value:
        return f"list of {_kind(value['items'])}"
    if "const" in value or "enum" in value:
        return f"`{value.get('const', value.get('enum'))}`"
    kinds = value.get("type", "anything")
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_cell(c) for c in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


PAGES = {
    "commands": commands,
    "exit-status": exit_status,
    "passes": passes,
    "operators": operators,
    "sources": sources,
    "number-formats": number_formats,
    "report": report,
}
