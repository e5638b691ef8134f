"""Refuse model files that are larger than in the last commit."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError
from infer_tool.units import parse_bytes, parse_share, show_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when no file grew, 1 when one did, 2 for wrong options or outside a repository."""
    parser = argparse.ArgumentParser(prog="infertool-model-growth", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--allow", default="0%", help="growth that is let through, e.g. 2%%")
    parser.add_argument("--max-new", help="largest new file, e.g. 5MB; default: any size")
    options = parser.parse_args(arguments)
    try:
        allow = parse_share(options.allow, "allow")
        most = None if options.max_new is None else parse_bytes(options.max_new, "max-new")
        found = [_complaint(path, allow, most) for path in options.files]
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is its answer
        return 2
    complaints = [text for text in found if text]
    for text in complaints:
        print(text)  # noqa: T201 - this is its answer
    return 1 if complaints else 0


def _complaint(path: Path, allow: float, most: int | None) -> str | None:
    now, before = path.stat().st_size, _committed(path)
    if before is None:
        if most is not None and now > most:
            return f"{path}: new, {show_bytes(now)}; at most {show_bytes(most)} (--max-new)"
        return None
    if now <= before * (1 + allow):
        return None
    growth = 100 * (now / before - 1) if before else float("inf")
    return (
        f"{path}: grew from {show_bytes(before)} to {show_bytes(now)}, {growth:+.1f} %; "
        f"raise --allow if that is meant"
    )


def _committed(path: Path) -> int | None:
    """Bytes of the file in the last commit, None where it is new."""
    git = ["git", "-C", str(path.parent or "."), "rev-parse", "--is-inside-work-tree"]
    if subprocess.run(git, capture_output=True, check=False).returncode:
        raise UsageError(f"{path}: not in a git repository")
    name = f"HEAD:./{path.name}"
    size = subprocess.run(
        ["git", "-C", str(path.parent or "."), "cat-file", "-s", name],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(size.stdout) if size.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
