"""The options of each operator: where the schema has them, and their defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_runtime.errors import ModelError

if TYPE_CHECKING:
    from infer_tool.importers.tflite.flatbuffer import Table

Fields = dict[str, tuple[int, str, float]]

# Fields in the order of their slots, each name:type=default; `-` stands for one that is not used.
# The first number is that of the table in the union BuiltinOptions.
_CONV = "padding:int8 stride_w:int32 stride_h:int32"
_FUSED = "activation:int8"
_SPECIFICATIONS = {
    "CONV_2D": f"1 {_CONV} activation:int8 dilation_w:int32=1 dilation_h:int32=1",
    "DEPTHWISE_CONV_2D": (
        f"2 {_CONV} multiplier:int32 activation:int8 dilation_w:int32=1 dilation_h:int32=1"
    ),
    "CONV_3D": (
        "106 padding:int8 stride_d:int32 stride_w:int32 stride_h:int32 activation:int8 "
        "dilation_d:int32=1 dilation_w:int32=1 dilation_h:int32=1"
    ),
    "TRANSPOSE_CONV": f"49 {_CONV} activation:int8",
    "AVERAGE_POOL_2D": f"5 {_CONV} filter_w:int32 filter_h:int32 activation:int8",
    "FULLY_CONNECTED": "8 activation:int8 weights_format:int8 keep_num_dims:bool",
    "SVDF": "6 rank:int32 activation:int8",
    "RNN": "7 activation:int8",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "31 time_major:bool activation:int8",
    "BIDIRECTIONAL_SEQUENCE_RNN": "70 time_major:bool activation:int8 merge_outputs:bool",
    "LSTM": "14 activation:int8 cell_clip:float32 projection_clip:float32 kernel:int8",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        "71 activation:int8 cell_clip:float32 projection_clip:float32 time_major:bool - "
        "diagonal:bool"
    ),
    "BIDIRECTIONAL_SEQUENCE_LSTM": (
        "69 activation:int8 cell_clip:float32 projection_clip:float32 merge_outputs:bool "
        "time_major:bool=1"
    ),
    "SOFTMAX": "9 beta:float32",
    "CONCATENATION": "10 axis:int32 activation:int8",
    "ADD": f"11 {_FUSED}",
    "SUB": f"28 {_FUSED}",
    "MUL": f"21 {_FUSED}",
    "DIV": f"29 {_FUSED}",
    "L2_NORMALIZATION": f"12 {_FUSED}",
    "LOCAL_RESPONSE_NORMALIZATION": "13 radius:int32 bias:float32 alpha:float32 beta:float32",
    "RESIZE_BILINEAR": "15 - - align_corners:bool half_pixel:bool",
    "RESIZE_NEAREST_NEIGHBOR": "74 align_corners:bool half_pixel:bool",
    "CALL": "16 subgraph:uint32",
    "RESHAPE": "17 new_shape:ints",
    "SPACE_TO_DEPTH": "19 block:int32",
    "DEPTH_TO_SPACE": "94 block:int32",
    "GATHER": "23 axis:int32 batch_dims:int32",
    "REDUCE": "27 keep_dims:bool",
    "SQUEEZE": "30 axes:ints",
    "STRIDED_SLICE": (
        "32 begin_mask:int32 end_mask:int32 ellipsis_mask:int32 new_axis_mask:int32 "
        "shrink_mask:int32 offset:bool"
    ),
    "PACK": "59 - axis:int32",
    "UNPACK": "64 - axis:int32",
    "ONE_HOT": "61 axis:int32",
    "LEAKY_RELU": "75 alpha:float32",
    "MIRROR_PAD": "77 mode:int8",
    "UNIQUE": "80 index_type:int8=2",
    "REVERSE_SEQUENCE": "87 sequence_axis:int32 batch_axis:int32",
    "FAKE_QUANT": "58 lowest:float32 highest:float32 bits:int32 narrow:bool",
    "IF": "92 then:int32 otherwise:int32",
    "WHILE": "93 condition:int32 body:int32",
    "CALL_ONCE": "103 subgraph:int32",
    "BATCH_MATMUL": "101 adjoint_x:bool adjoint_y:bool",
    "CUMSUM": "102 exclusive:bool reverse:bool",
    "VAR_HANDLE": "111 container:text name:text",
    "BUCKETIZE": "115 boundaries:floats",
    "GELU": "116 approximate:bool",
}
_SAME = {
    "MAX_POOL_2D": "AVERAGE_POOL_2D", "L2_POOL_2D": "AVERAGE_POOL_2D",
    "CONV_3D_TRANSPOSE": "CONV_3D",
    "MEAN": "REDUCE", "SUM": "REDUCE", "REDUCE_MAX": "REDUCE", "REDUCE_MIN": "REDUCE",
    "REDUCE_PROD": "REDUCE", "REDUCE_ANY": "REDUCE", "REDUCE_ALL": "REDUCE",
}  # fmt: skip


def _parsed(specification: str) -> tuple[int, Fields]:
    union, *parts = specification.split()
    fields: Fields = {}
    for slot, part in enumerate(parts):
        if part != "-":
            name, _, kind = part.partition(":")
            kind, _, default = kind.partition("=")
            fields[name] = (slot, kind, float(default or 0))
    return int(union), fields


class Options:
    """The options of one operator, by the names that the table above gives them."""

    def __init__(self, operator: str, union: int, table: Table | None, where: str) -> None:
        """Find the fields.

        Raises:
            ModelError: these are the options of another operator.

        """
        specification = _SPECIFICATIONS.get(_SAME.get(operator, operator))
        wanted, self._fields = _parsed(specification) if specification else (union, {})
        if table is not None and union not in (0, wanted):
            raise ModelError(f"{where} ({operator}) has options of another operator")
        self._table = table if union else None

    def integer(self, name: str) -> int:
        """An integer or the number of a choice."""
        return int(self._number(name))

    def flag(self, name: str) -> bool:
        """A yes or no."""
        return bool(self._number(name))

    def real(self, name: str) -> float:
        """A real number."""
        return float(self._number(name))

    def integers(self, name: str) -> tuple[int, ...]:
        """A vector of integers."""
        return self._table.integers(self._fields[name][0]) if self._table is not None else ()

    def reals(self, name: str) -> list[float]:
        """A vector of real numbers."""
        if self._table is None:
            return []
        return [float(v) for v in self._table.numbers(self._fields[name][0], "float32")]

    def text(self, name: str) -> str:
        """A name."""
        return self._table.text(self._fields[name][0]) if self._table is not None else ""

    def _number(self, name: str) -> float:
        slot, kind, default = self._fields[name]
        if self._table is None:
            return default
        return float(self._table.number(slot, kind, default))
