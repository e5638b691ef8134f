"""What a TFLite file says, as plain objects: subgraphs, tensors, operators, signatures.

Follows tensorflow/compiler/mlir/lite/schema/schema.fbs; numbers in the code are slots of its
tables. References between the parts are checked here, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError
from infer_tool.importers.tflite.flatbuffer import Reader
from infer_tool.importers.tflite.names import CUSTOM, OPERATORS, TYPES
from infer_tool.importers.tflite.options import Options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_tool.importers.tflite.flatbuffer import Array, Table

MAX_RANK = 8  # of what the kernels of LiteRT compute
ABSENT = -1  # index of an optional input that is not given
BLOCKWISE = 2  # of the union QuantizationDetails


@dataclass(frozen=True)
class Quantisation:
    """real = scale * (stored - zero_point), along `axis` where there are several scales.

    Blockwise quantisation keeps its scales in a tensor of its own, one for each `block` elements
    of the last axis.
    """

    scale: Array  # float32, [1] or [channels]
    zero_point: Array  # int64, of the same length
    axis: int
    block: int = 0
    scales_tensor: int = ABSENT


@dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph: `shape` has 1 where `signature` has -1, which is dynamic."""

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    has_rank: bool
    buffer: int
    is_variable: bool
    quantisation: Quantisation | None
    sparsity: Table | None


@dataclass(frozen=True)
class Operator:
    """One node: the indexes of its tensors in its subgraph, and its options."""

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    intermediates: tuple[int, ...]
    options: Options


@dataclass(frozen=True)
class Subgraph:
    """A function: the main one, a branch, the body of a loop."""

    index: int
    name: str
    tensors: list[Tensor]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: list[Operator]


@dataclass(frozen=True)
class Signature:
    """The names under which users know the inputs and outputs of a subgraph."""

    key: str
    subgraph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclass(frozen=True)
class File:
    """Everything; buffers are read when they are needed."""

    data: bytes
    subgraphs: list[Subgraph]
    buffers: list[Table]
    signatures: list[Signature]


def read_file(data: bytes) -> File:
    """Parse the bytes of a file.

    Raises:
        ModelError: an offset or an index leads outside, or the schema has another version.

    """
    root = Reader(data).root()
    version = root.number(0, "uint32")
    if version != 3:
        raise ModelError(f"its schema has version {version}, expected 3")
    buffers, codes = root.tables(4), [_operator_name(code) for code in root.tables(1)]
    subgraphs = [
        _subgraph(index, table, codes, len(buffers)) for index, table in enumerate(root.tables(2))
    ]
    if not subgraphs:
        raise ModelError("it holds no subgraph")
    signatures = [_signature(table, subgraphs) for table in root.tables(7)]
    return File(data, subgraphs, buffers, signatures)


def _operator_name(code: Table) -> str:
    """The larger of two numbers: old files have the first, new ones may need the second."""
    number = max(code.number(0, "int8"), code.number(3, "int32"))
    if not 0 <= number < len(OPERATORS):
        raise ModelError(f"operator code {number} is beyond the {len(OPERATORS)} that are known")
    name = OPERATORS[number]
    return f"{CUSTOM}:{code.text(1)}" if name == CUSTOM else name


def _subgraph(index: int, table: Table, codes: Sequence[str], buffers: int) -> Subgraph:
    tensors = [_tensor(i, t, buffers) for i, t in enumerate(table.tables(0))]
    inputs = _references(table, 1, len(tensors), f"subgraph {index}")
    outputs = _references(table, 2, len(tensors), f"subgraph {index}")
    if ABSENT in (*inputs, *outputs):
        raise ModelError(f"subgraph {index} has an input or output that is no tensor")
    operators = [
        _operator(i, t, codes, len(tensors), f"operator {i} of subgraph {index}")
        for i, t in enumerate(table.tables(3))
    ]
    return Subgraph(index, table.text(4), tensors, inputs, outputs, operators)


def _references(table: Table, slot: int, count: int, where: str) -> tuple[int, ...]:
    found = table.integers(slot)
    for index in found:
        if not ABSENT <= index < count:
            raise ModelError(f"{where} names tensor {index} of {count}")
    return found


def _operator(index: int, table: Table, codes: Sequence[str], tensors: int, where: str) -> Operator:
    code = table.number(0, "uint32")
    if code >= len(codes):
        raise ModelError(f"{where} has operator code {code} of {len(codes)}")
    inputs, outputs = (_references(table, slot, tensors, where) for slot in (1, 2))
    intermediates = _references(table, 8, tensors, where)
    options = Options(codes[code], table.number(3, "uint8"), table.table(4), where)
    return Operator(index, codes[code], inputs, outputs, intermediates, options)


def _tensor(index: int, table: Table, buffers: int) -> Tensor:
    kind, buffer = table.number(1, "int8"), table.number(2, "uint32")
    shape, signature = table.integers(0), table.integers(7)
    if not 0 <= kind < len(TYPES):
        raise ModelError(f"tensor {index} has type {kind}, which is not known")
    if buffer >= max(buffers, 1):
        raise ModelError(f"tensor {index} lies in buffer {buffer} of {buffers}")
    if len(shape) > MAX_RANK or min(shape, default=0) < 0:
        raise ModelError(f"tensor {index} has shape {list(shape[: MAX_RANK + 1])}")
    if signature and (len(signature) != len(shape) or min(signature) < -1):
        raise ModelError(f"tensor {index} has two shapes that contradict each other")
    return Tensor(
        index=index, name=table.text(3), type=TYPES[kind], shape=shape, signature=signature,
        has_rank=table.number(8, "bool", default=False), buffer=buffer,
        is_variable=table.number(5, "bool", default=False),
        quantisation=_quantisation(index, table.table(4), shape), sparsity=table.table(6),
    )  # fmt: skip


def _quantisation(index: int, table: Table | None, shape: tuple[int, ...]) -> Quantisation | None:
    """None for a tensor that is not quantised, for which files often have empty parameters."""
    if table is None:
        return None
    scale, zero, axis = table.numbers(2, "float32"), table.numbers(3, "int64"), 0
    details = table.table(5) if table.number(4, "uint8") == BLOCKWISE else None
    if details is not None:
        scales, block = details.number(0, "int32"), details.number(2, "int32")
        return Quantisation(scale, zero, len(shape) - 1, block, scales)
    if not len(scale):
        return None
    axis = table.number(6, "int32")
    if len(zero) not in (0, len(scale)):
        raise ModelError(f"tensor {index} has {len(scale)} scales and {len(zero)} zero points")
    if len(scale) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scale)):
        raise ModelError(f"tensor {index} has {len(scale)} scales for axis {axis} of {list(shape)}")
    return Quantisation(scale, zero if len(zero) else scale.astype("int64") * 0, axis)


def _signature(table: Table, subgraphs: Sequence[Subgraph]) -> Signature:
    key, index = table.text(2), table.number(4, "uint32")
    if index >= len(subgraphs):
        raise ModelError(f"signature {key!r} names subgraph {index} of {len(subgraphs)}")
    count = len(subgraphs[index].tensors)
    maps: list[dict[str, Any]] = []
    for slot in (0, 1):
        found = {entry.text(0): entry.number(1, "uint32") for entry in table.tables(slot)}
        if any(tensor >= count for tensor in found.values()):
            raise ModelError(f"signature {key!r} names a tensor that subgraph {index} has not")
        maps.append(found)
    return Signature(key, index, *maps)
