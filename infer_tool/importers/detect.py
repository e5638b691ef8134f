"""What is this source? Its content decides, not its suffix."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from infer_runtime.errors import ModelError, UsageError
from infer_tool.importers import safetensors
from infer_tool.importers.protobuf_kind import protobuf_kind
from infer_tool.plugins import plugins

MODULE = re.compile(r"^[\w./\\-]+:[A-Za-z_]\w*$")
DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
PICKLE = re.compile(rb"\x80[\x02-\x05]")
BEGINNINGS = {
    re.compile(rb".{4}TFL3", re.DOTALL): "tflite",
    re.compile(rb"\x89HDF\r\n\x1a\n"): "keras_h5",
    re.compile(rb'\s*\{\s*"base_code"\s*:\s*\{\s*"magic"\s*:\s*"pir"'): "paddle",
    re.compile(rb"(?:\s|#[^\n]*\n)*<[^<>{}]*\b(?:ir_version|opset_import)\s*:"): "onnx_text",
}
HEAD = 4096
ASCII_END = 127
PICKLE_ADVICE = (
    "loading it would run code; save the model with "
    "torch.export.save(torch.export.export(module, args), 'model.pt2')"
)
STATE_DICT_ADVICE = (
    "give a state dict to the code it belongs to, file.py:factory --state-dict FILE; of a whole "
    f"module, {PICKLE_ADVICE}"
)
SAVED_MODEL = "saved_model.pb"
CONFIG = "config.json"


def detect(source: str) -> str:
    """A key of FORMATS.

    Raises:
        UsageError: nothing readable is there, or it is a folder of another kind.
        ModelError: the content is of a kind that is refused, naming it.

    """
    if not source:
        raise UsageError("the name of the model is empty; name a file, a folder or a function")
    path = Path(source)
    try:
        return _existing(source, path) if path.exists() else _not_a_path(source)
    except OSError as error:
        raise UsageError(f"{source}: cannot be read: {error.strerror}") from error


def _not_a_path(source: str) -> str:
    if MODULE.match(source) and not DRIVE.match(source):
        from infer_tool.importers.factory import factory_kind

        return factory_kind(source)
    raise UsageError(f"{source}: no such file")


def _existing(source: str, path: Path) -> str:
    if path.is_dir():
        if (path / SAVED_MODEL).is_file():
            return "saved_model"
        if (path / CONFIG).is_file():
            return "huggingface"
        if any(path.glob("*.pdiparams")):
            return "paddle"
        raise UsageError(f"{source}: is a folder, not a model file")
    if not path.is_file():
        raise UsageError(f"{source}: is not a regular file")
    with path.open("rb") as handle:
        return _by_content(source, path, handle.read(HEAD))


def _by_content(source: str, path: Path, head: bytes) -> str:
    if reason := _refusal(head):
        raise ModelError(f"{source}: {reason}")
    for name, module in plugins("importers").items():
        if module.recognises(path, head):
            return name
    if head.startswith(b"PK"):
        return _by_listing(source, path)
    for beginning, kind in BEGINNINGS.items():
        if beginning.match(head):
            return kind
    if _is_text(head):
        hint = f"; name its factory, {source}:function" if path.suffix == ".py" else ""
        raise ModelError(f"{source}: is a text file, not a model{hint}")
    return _by_fields(source, path)


def _refusal(head: bytes) -> str | None:
    """Why a file of this kind is not read, and what to do instead."""
    if not head:
        return "the file is empty"
    if PICKLE.match(head):
        return f"is a pickle; {PICKLE_ADVICE}"
    if safetensors.looks_like(head):
        return f"is a state dict without its module; {STATE_DICT_ADVICE}"
    if head[4:8] == b"ORTM":
        return (
            "is in the format of ONNX Runtime (.ort), which other versions of it may not read "
            "either; take the .onnx file that it was made from"
        )
    return None


def _by_listing(source: str, path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise ModelError(f"{source}: is a damaged zip archive; copy it again") from error
    inner = [name.partition("/")[2] for name in names]
    if "archive_format" in inner and any(name.startswith("models/") for name in inner):
        return "pt2"
    if any(name.startswith("code/") for name in inner):
        return "torchscript"
    if any(name.endswith("data.pkl") for name in names):
        raise ModelError(f"{source}: is a pickled module or state dict; {STATE_DICT_ADVICE}")
    if "config.json" in names and any(name.endswith(".weights.h5") for name in names):
        return "keras"
    raise ModelError(f"{source}: is a zip archive, but not a .pt2 of torch.export.save")


def _by_fields(source: str, path: Path) -> str:
    kind = protobuf_kind(path)
    if kind == "saved_model_file":
        raise ModelError(f"{source}: is part of a SavedModel; name its folder, {path.parent}")
    if kind == "mindir":
        raise ModelError(
            f"{source}: is a MINDIR file, which MindSpore cannot export again; name the code that "
            "builds it, file.py:factory"
        )
    return kind


def _is_text(head: bytes) -> bool:
    """Printable throughout; a protobuf has control bytes in its first fields."""
    printable = {*range(32, ASCII_END), 9, 10, 13}
    return all(b in printable or b > ASCII_END for b in head)
