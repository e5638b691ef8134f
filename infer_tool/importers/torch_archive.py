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
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_GRAPH = 1 << 30  # bytes of JSON; real ones are some megabytes

NAME = re.compile(r"\w*")
PARAMETER = re.compile(r"[^\"'\\\n\r()]*")
EXPRESSION = re.compile(
    r"(?: [A-Z][A-Za-z]*(?=\() | '\w+' | [a-z]+=(?:True|False) | True | False | [suz]f?\d+"
    r" | \d+(?:\.\d+)?(?:e[+-]?\d+)? | [\s(),*/+\-<>=|&~] )*",
    re.VERBOSE,
)
OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims?|higher_order|quantized|quantized_decomposed|torchvision)"
    r"\.(?!__)\w+(?:\.(?!__)\w+)?"
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
    """Raise ModelError for anything in the archive that could run code."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise ModelError(f"{path}: two members of the archive have one name")
        for name in names:
            if "/aotinductor/" in name:
                raise ModelError(f"{path}: holds compiled code, which is not loaded: {name}")
            if name.endswith(".json"):
                _check_json(path, archive, name)


def _check_json(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    if archive.getinfo(name).file_size > LARGEST_GRAPH:
        raise ModelError(f"{path}: {name} is larger than {LARGEST_GRAPH} bytes")
    try:
        document = json.loads(archive.read(name))
    except (ValueError, zipfile.BadZipFile) as error:
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
