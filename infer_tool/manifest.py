"""manifest.json: what a result was made of, so that it can be made again and compared."""

from __future__ import annotations

import hashlib
import json
import typing
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError, UsageError
from infer_tool.files import sha256
from infer_tool.report.model import plain
from infer_tool.version import version

if TYPE_CHECKING:
    from infer_tool.config import Talk
    from infer_tool.report.model import Report

SCHEMA = 1
# How a command answers is not what it makes.
TALK = ("report", "json", "quiet", "time_budget", "max_memory", "show_config", "force")
INPUTS = (
    "source", "model", "data", "calib", "eval", "state_dict", "recipe", "student",
    "augment", "metric",
)  # fmt: skip
SPLIT = ":"


def manifest(report: Report) -> dict[str, Any] | None:
    """Of a command that wrote a model; None of one that did not."""
    output = report.config.get("output")
    if output is None or not Path(output).exists():
        return None
    data = Path(f"{output}.data")
    outputs = [Path(output), *([data] if data.is_file() else [])]
    return {
        "schema": SCHEMA,
        "tool": {"name": "infertool", "version": version()},
        "command": report.command,
        "config": {k: v for k, v in report.config.items() if k not in TALK},
        "seed": report.seed,
        "inputs": _inputs(report.config),
        "outputs": {str(path): digest(path) for path in outputs},
        "versions": report.versions,
    }


def to_text(document: dict[str, Any]) -> str:
    """The file's content."""
    return json.dumps(plain(document), indent=2, allow_nan=False)


def read_manifest(path: Path) -> dict[str, Any]:
    """Parse and check.

    Raises:
        UsageError: no such file, or it is none of ours.

    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        needed = (document["command"], document["config"], document["inputs"], document["outputs"])
        fits = document["schema"] == SCHEMA and isinstance(needed[0], str)
        fits = fits and all(isinstance(part, dict) for part in needed[1:])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a manifest of infertool") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if not fits:
        raise UsageError(f"{path}: not a manifest of infertool, or of a later version")
    return document


def changed_inputs(document: dict[str, Any]) -> list[str]:
    """Inputs that are missing or have another content than the manifest says."""
    return [
        name
        for name, wanted in document["inputs"].items()
        if not Path(name).exists() or digest(Path(name)) != wanted
    ]


def configuration(kind: type[Talk], values: dict[str, Any]) -> dict[str, Any]:
    """Values from JSON with the types of a command's options."""
    hints = typing.get_type_hints(kind)
    paths = {
        f.name for f in fields(kind) if Path in (hints[f.name], *typing.get_args(hints[f.name]))
    }
    return {
        name: Path(value) if name in paths and value is not None else value
        for name, value in values.items()
        if name not in TALK and name in hints
    }


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder."""
    if path.is_file():
        return sha256(path)
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\0".encode())
    return total.hexdigest()


def _inputs(config: dict[str, Any]) -> dict[str, str]:
    """Files and folders that the options name, also those of a recipe's stages."""
    found: dict[str, str] = {}
    pipeline = config.get("pipeline", {})
    parts = [config, pipeline]
    parts += [options for stage in pipeline.get("stages", ()) for options in stage.values()]
    for part in parts:
        found |= _named_files(part)
    return found


def _named_files(config: dict[str, Any]) -> dict[str, str]:
    """Files and folders that options name; of `file.py:function` the file."""
    found: dict[str, str] = {}
    for text in (config.get(key) for key in INPUTS):
        if not text:
            continue
        for candidate in (str(text), str(text).rpartition(SPLIT)[0]):
            if candidate and Path(candidate).exists():
                found[candidate] = digest(Path(candidate))
                found |= _external(Path(candidate))
                break
    return found


def _external(path: Path) -> dict[str, str]:
    """The data files of an ONNX model."""
    import onnx_ir as ir

    from infer_tool.importers.detect import detect

    try:
        if not path.is_file() or detect(str(path)) != "onnx":
            return {}
    except ModelError:  # data, not a model
        return {}
    if path.suffix != ".onnx":
        return {}
    tensors = (v.const_value for v in ir.load(path.absolute()).graph.initializers.values())
    files = {Path(t.path) for t in tensors if isinstance(t, ir.ExternalTensor)}
    return {str(path.parent / f.name): digest(f) for f in sorted(files)}
