"""Reading a .pt2 runs nothing that its author wrote: what torch would evaluate is checked first.

`torch.export.load` unpickles some members, evaluates shape expressions (`sympify`), looks operators
up by dotted name anywhere in the `torch` module, builds Python code from names, and loads compiled
libraries. A regular archive needs none of that freedom; one that uses it is refused.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_GRAPH = 1 << 30  # bytes of JSON; real ones are some megabytes
LARGEST_PACKED = 1 << 28  # bytes of all members that are compressed, once unpacked

# What reading a damaged member raises.
DAMAGE = (ValueError, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError,
          RuntimeError)  # fmt: skip

NAME = re.compile(r"\w*")
PARAMETER = re.compile(r"[^\"'\\\n\r()]*")
EXPRESSION = re.compile(
    r"(?: [A-Z][A-Za-z]*(?=\() | '\w+' | [a-z]+=(?:True|False) | True | False | [suz]f?\d+"
    r" | \d+(?:\.\d+)?(?:e[+-]?\d+)? | [\s(),*/+\-<>=|&~] )*",
    re.VERBOSE,
)
OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims?|higher_order|quantized|quantized_decomposed|torchvision)"
    r"\.(?!__|(?:from_file|save)\b)\w+(?:\.(?!__)\w+)?"
    r"|torch\.ops\.aten\.__i?(?:and|or|xor|lshift|rshift)__\.\w+"
    r"|torch\._?sym_\w+|math\.\w+"
    r"|_operator\.(?:add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge"
    r"|and_|or_|xor|not_|invert|lshift|rshift|getitem|index|truth)"
)
RULES = {
    "name": NAME,
    "as_name": NAME,
    "forward_arg_names": NAME,
    "parameter_name": PARAMETER,
    "buffer_name": PARAMETER,
    "expr_str": EXPRESSION,
    "target": OPERATOR,
    "as_operator": OPERATOR,
}
SPECS = {"in_spec", "out_spec"}
IMPORTING_SPEC = re.compile(r"default_factory_module|__enum__")


def check_archive(path: Path) -> None:
    """Raise ModelError for anything in a .pt2 that could run code."""
    names = check_zip(path)
    with zipfile.ZipFile(path) as archive:
        for name in names:
            if "/aotinductor/" in name:
                raise ModelError(f"{path}: holds compiled code, which is not loaded: {name}")
            if name.endswith(".json"):
                _check_json(path, archive, name)


def check_zip(path: Path) -> list[str]:
    """The members of an archive that torch wrote: plain names, once each, no more than it holds.

    Raises:
        ModelError: damaged, or a name or a size that torch does not write.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            members, comment = archive.infolist(), archive.comment
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise ModelError(f"{path}: is a damaged zip archive; copy it again") from error
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise ModelError(f"{path}: two members of the archive have one name")
    for name in names:
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise ModelError(f"{path}: the name {name[:80]!r} leads out of the archive")
    _check_sizes(path, members)
    if comment:
        raise ModelError(f"{path}: the archive has a comment, which torch does not write")
    return names


def _check_sizes(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """torch compresses code only; and members that overlap are no archive of anybody's."""
    held = sum(m.compress_size for m in members)
    packed = sum(m.file_size for m in members if m.compress_type != zipfile.ZIP_STORED)
    stored = [m for m in members if m.compress_type == zipfile.ZIP_STORED]
    if held > path.stat().st_size or any(m.compress_size != m.file_size for m in stored):
        raise ModelError(f"{path}: its members are larger than the archive; copy it again")
    if packed > LARGEST_PACKED:
        raise ModelError(f"{path}: unpacks to {packed} bytes, more than {LARGEST_PACKED}")


def _check_json(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    if archive.getinfo(name).file_size > LARGEST_GRAPH:
        raise ModelError(f"{path}: {name} is larger than {LARGEST_GRAPH} bytes")
    try:
        document = json.loads(archive.read(name))
    except (*DAMAGE, RecursionError) as error:
        raise ModelError(f"{path}: {name} is damaged; copy the file again") from error
    for key, text in _strings(document):
        if not _is_harmless(key, text):
            raise ModelError(f"{path}: {key} {text[:80]!r} is none that torch.export writes")


def _strings(document: Any) -> Iterator[tuple[str, str]]:
    """Every text with the key it stands under; a stack, since files nest as deep as they like."""
    rest = [("", document)]
    while rest:
        key, value = rest.pop()
        if isinstance(value, dict):
            rest.extend(value.items())
        elif isinstance(value, list):
            rest.extend((key, item) for item in value)
        elif isinstance(value, str):
            yield key, value


def _is_harmless(key: str, text: str) -> bool:
    if key in SPECS:
        return not IMPORTING_SPEC.search(text) and _keywords_are_names(text)
    rule = RULES.get(key)
    return rule is None or rule.fullmatch(text) is not None


def _keywords_are_names(spec: str) -> bool:
    """The keywords of a call become parameters of a generated function."""
    try:
        children = json.loads(spec)[1]["children_spec"] if spec else []
        keywords = json.loads(children[1]["context"]) if len(children) > 1 else []
    except (ValueError, TypeError, KeyError, IndexError):
        return True  # another shape of specification: torch refuses it, or it has no keywords
    texts = [k for k in keywords if isinstance(k, str)] if isinstance(keywords, list) else []
    return all(NAME.fullmatch(text) for text in texts)


@contextmanager
def no_pickled_code(torch: Any) -> Iterator[None]:
    """Force every load inside `torch.export.load` to accept tensors and plain containers only.

    torch reads some members with weights_only=False, which would run code of a crafted file.
    """
    original = torch.load, pickle.loads, torch._C._pickle_load_obj

    def safe(*arguments: Any, **keywords: Any) -> Any:
        return original[0](*arguments, **{**keywords, "weights_only": True})

    def refuse(*_: Any, **__: Any) -> Any:
        raise ModelError("the archive holds a pickled object, which is not read")

    torch.load, pickle.loads, torch._C._pickle_load_obj = safe, refuse, refuse
    try:
        yield
    finally:
        torch.load, pickle.loads, torch._C._pickle_load_obj = original
