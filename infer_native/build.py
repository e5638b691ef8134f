"""Compilers: a shared library from emitted C, kept in a cache by its content."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from infer_native.header import header
from infer_runtime.errors import InferError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.emit import Emitted

# No result depends on errno or on traps; sums of products may be fused, as every engine does.
FLAGS = (
    "-std=c11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
)  # fmt: skip
QUICK = "-g0"  # zig describes the code to debuggers unless it is told not to
WARNINGS = ("-Wall", "-Wextra", "-Werror")
TIMEOUT = 300  # seconds


@dataclass(frozen=True)
class Compiler:
    """A command that compiles C."""

    name: str
    command: tuple[str, ...]


def find_compiler(name: str = "auto") -> Compiler:
    """gcc, clang or zig; 'auto' is the wheel `ziglang` where it is installed, else a system's own.

    Raises:
        MissingExtraError: there is none.
        UsageError: no such name.

    """
    known = {"zig": _zig, "gcc": _system, "clang": _system, "cc": _system}
    if name != "auto" and name not in known:
        raise UsageError(f"--compiler {name!r}: expected one of auto, {', '.join(known)}")
    for candidate in known if name == "auto" else (name,):
        if (found := known[candidate](candidate)) is not None:
            return found
    wanted = "no C compiler is here" if name == "auto" else f"{name} is not here"
    raise MissingExtraError(f"{wanted}; run: pip install 'infertool[native]', or install gcc")


def _zig(name: str) -> Compiler | None:
    if importlib.util.find_spec("ziglang") is not None:
        return Compiler(name, (sys.executable, "-m", "ziglang", "cc"))
    path = shutil.which("zig")
    return None if path is None else Compiler(name, (path, "cc"))


def _system(name: str) -> Compiler | None:
    path = shutil.which(name)
    return None if path is None else Compiler(name, (path,))


def cache_folder() -> Path:
    """Where compiled models are kept: INFERTOOL_CACHE, or the user's cache folder."""
    given = os.environ.get("INFERTOOL_CACHE")
    base = Path(given) if given else Path.home() / ".cache" / "infertool"
    return base / "native"


def build_library(
    emitted: Emitted,
    *,
    compiler: str = "auto",
    folder: Path | None = None,
    extra: Sequence[str] = (),
) -> Path:
    """The shared library of a model, compiled unless the cache has it.

    Raises:
        MissingExtraError: there is no compiler.
        InferError: the compiler fails: a fault of the emitter.

    """
    chosen = find_compiler(compiler)
    cache = folder or cache_folder()
    flags = "-".join(extra).replace("/", "_")
    path = cache / f"{emitted.key[:32]}-{chosen.name}{flags}.so"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="infertool-native-") as work:
        write_sources(emitted, Path(work))
        made = Path(work) / "model.so"
        run_compiler(
            [*chosen.command, *FLAGS, QUICK, *WARNINGS, *emitted.isa.flags, *extra, "-fPIC",
             "-shared", str(Path(work) / "model.c"), "-lm", "-o", str(made)]
        )  # fmt: skip
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        shutil.copyfile(made, temporary)
        temporary.replace(path)
    return path


def write_sources(emitted: Emitted, folder: Path) -> None:
    """model.c, model.h and the weights."""
    (folder / "model.c").write_text(emitted.source)
    (folder / "model.h").write_text(header(emitted))
    (folder / "model.weights").write_bytes(emitted.weights)


def run_compiler(command: Sequence[str]) -> None:
    """Run a compiler.

    Raises:
        InferError: it fails or hangs; the text has its first error.

    """
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InferError(f"{command[0]} did not end within {TIMEOUT} s") from error
    if done.returncode:
        lines = [x for x in done.stderr.splitlines() if "error" in x] or done.stderr.splitlines()
        raise InferError(f"{Path(command[0]).name} fails on emitted C: {(lines or ['?'])[0]}")


def build_project(emitted: Emitted, folder: Path, compiler: str, triple: str | None) -> None:
    """libmodel as a static and a shared library in `folder`, for this machine or for `triple`.

    Raises:
        MissingExtraError: there is no compiler.
        InferError: the compiler fails.

    """
    chosen = find_compiler(compiler)
    flags = [*FLAGS, QUICK, *WARNINGS, *emitted.isa.flags]
    source, object_ = str(folder / "model.c"), str(folder / "model.o")
    shared, pic = "libmodel.so", ["-fPIC"]
    if triple is not None:
        flags += ["-target", triple]
        shared = {"windows": "model.dll", "macos": "libmodel.dylib"}.get(
            triple.split("-")[1], "libmodel.so"
        )
        pic = [] if "windows" in triple else pic
    run_compiler([*chosen.command, *flags, *pic, "-c", source, "-o", object_])
    archiver = [*chosen.command[:-1], "ar"] if chosen.name == "zig" else ["ar"]
    run_compiler([*archiver, "rcsD", str(folder / "libmodel.a"), object_])
    if triple is None or "wasm" not in triple:  # which has no shared libraries
        target = [] if triple is None else ["-target", triple]
        libm = [] if triple is not None and "windows" in triple else ["-lm"]
        link = [*chosen.command, *target, "-shared", object_, *libm, "-o", str(folder / shared)]
        run_compiler(link)
    Path(object_).unlink()
