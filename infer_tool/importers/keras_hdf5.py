"""Inside TensorFlow's process: HDF5 files of Keras hold plain arrays and no code."""

from __future__ import annotations

import zipfile
from typing import Any

from infer_runtime.errors import ModelError
from infer_tool.importers.keras_screen import screen_config

LARGEST_UNSAVED = 1 << 26  # bytes of an array that the file does not hold
MODEL = "model_config"


def check_hdf5(source: str) -> None:
    """Raise for an .h5 file that Keras should not load.

    Raises:
        ModelError: weights alone, a layer that holds code, or arrays that lie in other files.

    """
    import h5py  # type: ignore[import-untyped]

    with h5py.File(source, "r") as file:
        _check_arrays(source, file)
        if MODEL not in file.attrs:
            raise ModelError(
                f"{source}: holds no architecture (attribute {MODEL}); save the whole model: "
                "model.save('model.keras')"
            )
        config = file.attrs[MODEL]
    screen_config(source, config)


def check_weights(source: str) -> None:
    """The same for the arrays of a .keras file."""
    import h5py

    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            if name.endswith(".h5"):
                with archive.open(name) as member, h5py.File(member, "r") as file:
                    _check_arrays(f"{source}: {name}", file)


def _check_arrays(source: str, file: Any) -> None:
    """Every array lies in the file itself; a stack, since groups nest as deep as they like."""
    import h5py

    rest, seen = [file], set()
    while rest:
        group = rest.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ModelError(f"{source}: {group.name}/{name} is a link, which is not followed")
            item = group[name]
            place = h5py.h5o.get_info(item.id).addr
            if place not in seen and isinstance(item, h5py.Group):
                rest.append(item)
            elif isinstance(item, h5py.Dataset):
                _check_array(source, item)
            seen.add(place)


def _check_array(source: str, item: Any) -> None:
    if item.external or item.is_virtual:
        raise ModelError(f"{source}: {item.name} lies in another file, which is not read")
    if item.nbytes > max(LARGEST_UNSAVED, 100 * item.id.get_storage_size()):
        raise ModelError(f"{source}: {item.name} has {item.nbytes} bytes, but not its file")
