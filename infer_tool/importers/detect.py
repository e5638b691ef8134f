"""What is this source? Its content decides, not its suffix."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from infer_runtime.errors import ModelError, UsageError

MODULE = re.compile(r"^[\w./\\-]+:[A-Za-z_]\w*$")
DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
HEAD = 4096
ASCII_END = 127
PICKLE_ADVICE = (
    "loading it would run code; save the model with "
    "torch.export.save(torch.export.export(module, args), 'model.pt2')"
)


def detect(source: str) -> str:
    """'onnx', 'pt2' or 'torch' (module:factory).

    Raises:
        UsageError: nothing is there, or it is a folder.
        ModelError: the content is of a kind that is refused, naming it.

    """
    path = Path(source)
    if not path.exists():
        if MODULE.match(source) and not DRIVE.match(source):
            return "torch"
        raise UsageError(f"{source}: no such file")
    if path.is_dir():
        raise UsageError(f"{source}: is a folder, not a model file{_folder_hint(path)}")
    with path.open("rb") as handle:
        head = handle.read(HEAD)
    return _by_content(source, path, head)


def _by_content(source: str, path: Path, head: bytes) -> str:
    if not head:
        raise ModelError(f"{source}: the file is empty")
    if head.startswith(b"PK"):
        return _by_listing(source, path)
    if re.match(rb"\x80[\x02-\x05]", head):
        raise ModelError(f"{source}: is a pickle; {PICKLE_ADVICE}")
    if head[4:8] == b"TFL3":
        raise ModelError(f"{source}: is a TFLite model, which is not supported yet")
    if head.startswith(b"\x89HDF"):
        raise ModelError(f"{source}: is a Keras HDF5 model, which is not supported yet")
    if _is_text(head):
        raise ModelError(f"{source}: is a text file, not a model")
    return "onnx"


def _by_listing(source: str, path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ModelError(f"{source}: is a damaged zip archive; copy it again") from error
    parts = [n.partition("/")[2] for n in names]
    if "archive_format" in parts and any(n.startswith("models/") for n in parts):
        return "pt2"
    if any(n.startswith("code/") for n in parts):
        raise ModelError(f"{source}: is TorchScript, which is not supported yet; use torch.export")
    if any(n.endswith("data.pkl") for n in names):
        raise ModelError(f"{source}: is a pickled module or state dict; {PICKLE_ADVICE}")
    if "config.json" in names and any(n.endswith(".weights.h5") for n in names):
        raise ModelError(f"{source}: is a Keras model, which is not supported yet")
    raise ModelError(f"{source}: is a zip archive, but not a .pt2 of torch.export.save")


def _folder_hint(path: Path) -> str:
    if (path / "saved_model.pb").exists():
        return "; TensorFlow SavedModels are not supported yet"
    return ""


def _is_text(head: bytes) -> bool:
    """Printable throughout; a protobuf has control bytes in its first fields."""
    printable = {*range(32, ASCII_END), 9, 10, 13}
    return all(b in printable or b > ASCII_END for b in head)
