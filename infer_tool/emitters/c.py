"""A folder of C sources: built and verified beside its final place, then moved there."""

from __future__ import annotations

import os
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from infer_native.build import build_project, write_sources
from infer_native.project import cmake, example, readme
from infer_runtime.errors import UsageError
from infer_tool.files import remove_leftovers, temporary_prefix, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from infer_native.emit import Emitted
    from infer_native.targets import Target
    from infer_native.tuning import Tuning


def check_folder(path: Path, force: bool) -> None:
    """Can a folder be made at `path`? Asked before any work is done.

    Raises:
        UsageError: it exists and `force` is not set, or its parent is missing or refuses.

    """
    if path.exists() and not force:
        raise UsageError(f"{path}: exists already; give another name or --force")
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; --to c writes a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / "model.h").exists():
        raise UsageError(f"{path}: is no folder of an emitted model; give another name")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise UsageError(f"{path}: the folder {parent} does not exist; create it first")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"{path}: the folder {parent} cannot be written")
    remove_leftovers(path.absolute())


@contextmanager
def new_folder(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield a folder beside `path`; it takes the name when the body succeeds, else it goes."""
    check_folder(path, force)
    final = path.absolute()
    with TemporaryDirectory(
        prefix=temporary_prefix(final), suffix=".tmp", dir=final.parent
    ) as work:
        made = final.parent / work / "new"
        made.mkdir()
        yield made
        with written(path):
            if final.exists():
                final.rename(made.parent / "old")
            made.rename(final)


def write_project(
    emitted: Emitted, folder: Path, *, checked: str, build: bool, compiler: str,
    target: Target | None, tuning: Tuning | None = None,
) -> None:  # fmt: skip
    """All files of the folder; with `build` also the libraries.

    Raises:
        MissingExtraError: no compiler for the target.

    """
    with written(folder):
        write_sources(emitted, folder)
        (folder / "main.c").write_text(example(emitted))
        (folder / "CMakeLists.txt").write_text(cmake(emitted))
        (folder / "README.md").write_text(readme(emitted, checked, tuning))
        if tuning is not None:
            (folder / "tuning.json").write_text(tuning.text())
    if build:
        build_project(emitted, folder, compiler, None if target is None else target.triple)
