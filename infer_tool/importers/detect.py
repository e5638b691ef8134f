"""What is this source? Its content decides, not its suffix."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from infer_runtime.errors import ModelError, UsageError
from infer_tool.plugins import plugins

MODULE = re.compile(r"^[\w./\\-]+:[A-Za-z_]\w*$")
DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
PICKLE = re.compile(rb"\x80[\x02-\x05]")
HEAD = 4096
ASCII_END = 127
PICKLE_ADVICE = (
    "loading it would run code; save the model with "
    "torch.export.save(torch.export.export(module, args), 'model.pt2')"
)
SAVED_MODEL = "saved_model.pb"


def detect(source: str) -> str:
    """'onnx', 'pt2', 'torch' (module:factory), 'keras' or 'saved_model'.

    Raises:
        UsageError: nothing readable is there, or it is a folder of another kind.
        ModelError: the content is of a kind that is refused, naming it.

    """
    path = Path(source)
    try:
        return _existing(source, path) if path.exists() else _not_a_path(source)
    except OSError as error:
        raise UsageError(f"{source}: cannot be read: {error.strerror}") from error


def _not_a_path(source: str) -> str:
    if MODULE.match(source) and not DRIVE.match(source):
        return "torch"
    raise UsageError(f"{source}: no such file")


def _existing(source: str, path: Path) -> str:
    if path.is_dir():
        if (path / SAVED_MODEL).is_file():
            return "saved_model"
        raise UsageError(f"{source}: is a folder, not a model file")
    if not path.is_file():
        raise UsageError(f"{source}: is not a regular file")
    with path.open("rb") as handle:
        return _by_content(source, path, handle.read(HEAD))


def _by_content(source: str, path: Path, head: bytes) -> str:
    if not head:
        raise ModelError(f"{source}: the file is empty")
    for name, module in plugins("importers").items():
        if module.recognises(path, head):
            return name
    if head.startswith(b"PK"):
        return _by_listing(source, path)
    if PICKLE.match(head):
        raise ModelError(f"{source}: is a pickle; {PICKLE_ADVICE}")
    if head[4:8] == b"TFL3":
        raise ModelError(f"{source}: is a TFLite model, which is not supported yet")
    if head.startswith(b"\x89HDF"):
        raise ModelError(f"{source}: is an HDF5 file; save the Keras model again as .keras")
    if _is_text(head):
        hint = f"; name its factory, {source}:function" if path.suffix == ".py" else ""
        raise ModelError(f"{source}: is a text file, not a model{hint}")
    return "onnx"


def _by_listing(source: str, path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ModelError(f"{source}: is a damaged zip archive; copy it again") from error
    inner = [name.partition("/")[2] for name in names]
    if "archive_format" in inner and any(name.startswith("models/") for name in inner):
        return "pt2"
    if any(name.startswith("code/") for name in inner):
        raise ModelError(f"{source}: is TorchScript, which is not supported yet; use torch.export")
    if any(name.endswith("data.pkl") for name in names):
        raise ModelError(f"{source}: is a pickled module or state dict; {PICKLE_ADVICE}")
    if "config.json" in names and any(name.endswith(".weights.h5") for name in names):
        return "keras"
    raise ModelError(f"{source}: is a zip archive, but not a .pt2 of torch.export.save")


def _is_text(head: bytes) -> bool:
    """Printable throughout; a protobuf has control bytes in its first fields."""
    printable = {*range(32, ASCII_END), 9, 10, 13}
    return all(b in printable or b > ASCII_END for b in head)
