"""Which subgraph is meant, and what users call its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_runtime.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infer_tool.importers.tflite.schema import File

DEFAULT = "serving_default"


@dataclass(frozen=True)
class Entry:
    """What is imported: a subgraph, the names of its inputs and outputs, their tensors."""

    subgraph: int
    signature: str  # empty where the file has none
    inputs: dict[str, int]
    outputs: dict[str, int]
    keys: dict[str, str]  # what the signature calls them, by our names


def entry(file: File, wanted: str) -> Entry:
    """The signature that the user names, else the default one, else the only one.

    Raises:
        UsageError: there is no such signature, or there are several and none is named.
        ModelError: its names do not cover what the subgraph takes.

    """
    found = {s.key: s for s in file.signatures}
    if wanted and wanted not in found:
        listed = ", ".join(found) or "none"
        raise UsageError(f"--signature {wanted}: the file has {listed}")
    if not found:
        return _unsigned(file)
    if not wanted and DEFAULT not in found and len(found) > 1:
        raise UsageError(f"the file has several signatures; choose: --signature {', '.join(found)}")
    signature = found[wanted or (DEFAULT if DEFAULT in found else next(iter(found)))]
    subgraph = file.subgraphs[signature.subgraph]
    keys: dict[str, str] = {}
    inputs = _named(signature.inputs, subgraph.inputs, keys)
    if set(inputs.values()) != set(subgraph.inputs):
        raise ModelError(f"signature {signature.key!r} does not name all inputs of its subgraph")
    outputs = _named(signature.outputs, subgraph.outputs, keys)
    return Entry(signature.subgraph, signature.key, inputs, outputs, keys)


def _unsigned(file: File) -> Entry:
    """The first subgraph, under the names of its tensors."""
    subgraph = file.subgraphs[0]
    inputs: dict[str, int] = {}
    for index in subgraph.inputs:
        inputs[_free(_name(subgraph.tensors[index].name, index), inputs)] = index
    outputs: dict[str, int] = {}
    for index in subgraph.outputs:
        name = _name(subgraph.tensors[index].name, index)
        outputs[_free(name, {**inputs, **outputs})] = index
    return Entry(0, "", inputs, outputs, {})


def _name(name: str, index: int) -> str:
    return name if name and name.isprintable() else f"tensor_{index}"


def _named(names: dict[str, int], order: tuple[int, ...], keys: dict[str, str]) -> dict[str, int]:
    """In the order of the subgraph, under names that no other has; what it leaves out is last."""
    places = {tensor: place for place, tensor in reversed(list(enumerate(order)))}
    found: dict[str, int] = {}
    for key, index in sorted(names.items(), key=lambda n: (places.get(n[1], len(order)), n[0])):
        name = _free(_name(key, index), keys)
        keys[name], found[name] = key, index
    return found


def _free(name: str, taken: Mapping[str, object]) -> str:
    """An input and an output may share a name in a file, but not in ONNX."""
    while name in taken:
        name = f"{name}_output"
    return name
