"""Files appear whole or not at all."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import secrets
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 20


def check_output(path: Path, force: bool) -> None:
    """Can `path` be written? Asked before any work is done.

    Raises:
        UsageError: it exists and `force` is not set, is a folder, or its folder is missing or
            refuses new files.

    """
    folder = path.parent
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"{path}: the folder {folder} {what}; create it first")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it")
    if path.exists() and not force:
        raise UsageError(f"{path}: exists already; give another name or --force")
    remove_leftovers(path)
    probe = temporary_name(path)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{path}: the folder {folder} cannot be written: {error.strerror}"
        ) from error


def temporary_name(path: Path) -> Path:
    """A name beside `path` that nobody has; it says which process will remove it."""
    return path.with_name(f"{temporary_prefix(path)}{secrets.token_hex(6)}.tmp")


def temporary_prefix(path: Path) -> str:
    """What the names of this process's temporary files for `path` begin with."""
    return f".{path.name}.{os.getpid()}-"


def remove_leftovers(path: Path) -> None:
    """Temporary files for `path` of processes that were killed before they could."""
    own = re.compile(rf"\.{re.escape(path.name)}\.(\d+)-\w+\.tmp")
    for found in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        match = own.fullmatch(found.name)
        if match and not _runs(int(match[1])):
            if found.is_dir():
                shutil.rmtree(found, ignore_errors=True)
            else:
                found.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    try:  # one that ended, and that nobody waited for, still has its number
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:  # noqa: PTH123 - no Path here
            state = file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in ("Z", "X")


@contextmanager
def atomic_path(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it when the body succeeds, else remove it.

    Raises:
        UsageError: see `check_output`; also for a disk that is full.

    """
    check_output(path, force)
    temporary = temporary_name(path)
    try:
        yield temporary
        with written(path):
            sync(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Say which output the system refused to write, and why."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error


def sync(path: Path) -> None:
    """On disk before it gets its name: a crash must not leave an empty file under it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
