"""Keras files before Keras sees them: damaged archives, bombs, paths, and layers that hold code.

A configuration names classes by module, and some classes hold pickled functions or read files that
the configuration names. What a model of plain layers needs is allowed; the rest is refused by name.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from infer_runtime.errors import ModelError

CONFIG = "config.json"
LARGEST_CONFIG = 1 << 26  # bytes; a model of a thousand layers has a megabyte
LARGEST_RATIO = 100  # of a member's size; trained weights hardly shrink
SMALL = 1 << 20

EXPORT_ADVICE = "export the model as a SavedModel where you trust it: model.export(folder)"
HOLDING_CODE = {"Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"}
MODULES = re.compile(
    r"keras|builtins|keras\.(src\.)?"
    r"(layers|models|initializers|regularizers|constraints|activations|ops|quantizers|random"
    r"|dtype_policies|metrics|losses|optimizers|backend\.common\.keras_tensor)(\.\w+)*"
)
# Keys under which a layer names a file that it would read.
FILES = {"vocabulary", "filepath", "idf_weights", "token_table"}

# What zipfile raises for wrong bytes.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, struct.error)

HDF5_OLD, HDF5_NEWEST = (0, 1), 3
HDF5_OFFSETS = 8


def screen_archive(source: str) -> None:
    """Raise for a .keras file that Keras should not load.

    Raises:
        ModelError: damaged, a bomb, reaching outside, or holding code.

    """
    try:
        with zipfile.ZipFile(source) as archive:
            _check_members(source, archive.infolist())
            config = archive.read(CONFIG)
            damaged = archive.testzip()
    except DAMAGE as error:
        raise ModelError(f"{source}: is a damaged zip archive; copy it again") from error
    if damaged is not None:
        raise ModelError(f"{source}: {damaged} is damaged; copy the file again")
    screen_config(source, config)


def _check_members(source: str, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise ModelError(f"{source}: two members of the archive have one name")
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in member.filename:
            raise ModelError(f"{source}: its member {member.filename!r} lies outside the archive")
        most = max(SMALL, LARGEST_RATIO * member.compress_size)
        if member.file_size > (LARGEST_CONFIG if member.filename == CONFIG else most):
            raise ModelError(
                f"{source}: {member.filename} would grow from {member.compress_size} to "
                f"{member.file_size} bytes; save the model again without compression"
            )


def screen_config(source: str, text: str | bytes) -> None:
    """Raise for a configuration that names code or files, in the form of Keras 3 or an older one.

    Raises:
        ModelError: naming the class or the key.

    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{source}: {CONFIG} is damaged; copy the file again") from error
    if not isinstance(document, dict) or "class_name" not in document:
        raise ModelError(f"{source}: its configuration describes no model")
    rest: list[Any] = [{k: v for k, v in document.items() if k != "compile_config"}]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            _check_object(source, value)
            rest.extend(value.values())
        elif isinstance(value, list):
            rest.extend(value)


def _check_object(source: str, item: dict[str, Any]) -> None:
    kind, module = item.get("class_name"), item.get("module")
    config = item.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    where = f", layer {name!r}" if isinstance(name, str) else ""
    if isinstance(kind, str) and kind.rpartition(">")[2] in HOLDING_CODE:
        raise ModelError(f"{source}: holds code ({kind}{where}), which is not run; {EXPORT_ADVICE}")
    if isinstance(module, str) and not MODULES.fullmatch(module):
        raise ModelError(
            f"{source}: class {kind} of module {module!r}{where} is not loaded, it would run code; "
            f"{EXPORT_ADVICE}"
        )
    for key in FILES & set(item):
        if isinstance(item[key], str) and item[key]:
            raise ModelError(f"{source}: would read a file, {key} {item[key]!r}; {EXPORT_ADVICE}")


def screen_hdf5(source: str) -> None:
    """Raise for an HDF5 file that ends too early.

    The superblock is the first in the HDF5 File Format Specification, III.A: after the signature
    come its version and the widths of offsets, and where the file's content ends.
    """
    path = Path(source)
    with path.open("rb") as handle:
        head = handle.read(64)
    version = head[8] if len(head) > 8 else -1
    if version in HDF5_OLD:
        width, place = head[13:14], 40 if version == 0 else 44
    elif 0 <= version <= HDF5_NEWEST:
        width, place = head[9:10], 28
    else:
        raise ModelError(f"{source}: is a damaged HDF5 file; copy it again")
    end = int.from_bytes(head[place : place + HDF5_OFFSETS], "little")
    if width != bytes([HDF5_OFFSETS]) or len(head) < place + HDF5_OFFSETS:
        raise ModelError(f"{source}: is a damaged HDF5 file; copy it again")
    if end > path.stat().st_size:
        raise ModelError(
            f"{source}: is a damaged HDF5 file: {path.stat().st_size} bytes instead of {end}; "
            "copy it again"
        )
