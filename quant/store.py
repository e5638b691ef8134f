"""How a quantised weight enters a graph: standard types where ONNX has them, packed where not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from infer_runtime.errors import ModelError
from passes.base import all_nodes, is_op
from passes.facts import opset
from passes.graph import add_initializer, fresh_name
from quant.formats import FloatFormat, IntegerFormat, PaletteFormat
from quant.granularity import PerAxis, PerBlock
from quant.packing import BYTE, pack, unpack_node

if TYPE_CHECKING:
    from quant.tensor import QuantizedTensor

    Array = np.ndarray[Any, Any]

# Formats that DequantizeLinear reads, and the opset from which on it does.
NATIVE = {
    "int8": 13, "uint8": 13, "fp8-e4m3": 19, "fp8-e5m2": 19, "int16": 21, "uint16": 21,
    "int4": 21, "uint4": 21, "int2": 25, "uint2": 25,
}  # fmt: skip
BLOCKS_SINCE = 21
FORMAT_KEY, WEIGHT_KEY = "infertool.format", "infertool.weight"
_NARROW = {
    "int4": ml_dtypes.int4, "uint4": ml_dtypes.uint4, "int2": ml_dtypes.int2,
    "uint2": ml_dtypes.uint2,
}  # fmt: skip


class Store:
    """Writes weights into one model."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model

    def number(self, name: str, weight: QuantizedTensor, *, fold: bool = False) -> ir.Value:
        """A float32 value of the weight's shape, computed from what is stored.

        With `fold` by operators that engines compute once, when they load the file; without it by
        DequantizeLinear where that knows the format, which engines fuse into MatMul.

        Raises:
            ModelError: the format needs an opset at which a node of the model means something else.

        """
        form = weight.format
        if isinstance(form, PaletteFormat):
            return self._palette(name, weight, form)
        if isinstance(form, FloatFormat) and not form.scaled:
            stored = self.constant(f"{name}_q", weight.levels)
            return self.node("Cast", [stored], f"{name}_f", to=int(ir.DataType.FLOAT))
        since = NATIVE.get(form.name)
        if isinstance(form, IntegerFormat) and (since is None or fold):
            return self._arithmetic(name, weight, form)
        assert since is not None
        blocked = isinstance(weight.granularity, PerBlock)
        raise_opset(self.model, max(since, BLOCKS_SINCE if blocked else since))
        return self._dequantize(name, weight)

    def levels(self, name: str, weight: QuantizedTensor) -> ir.Value:
        """The levels in the type that integer kernels read (int8 or uint8), from packed ones.

        Engines unpack them once, when they load the file, at any opset.
        """
        form = weight.format
        assert isinstance(form, IntegerFormat)
        if form.bits >= BYTE:
            return self.constant(f"{name}_q", weight.levels)
        unsigned = self._unpacked(name, (weight.levels.astype(np.int16) - form.low), form.bits)
        if not form.signed:
            return unsigned
        signed = self.node("Cast", [unsigned], f"{name}_i", to=int(ir.DataType.INT8))
        offset = self.constant(f"{name}_o", np.array(form.low, np.int8))
        return self.node("Add", [signed, offset], f"{name}_l")

    def _dequantize(self, name: str, weight: QuantizedTensor) -> ir.Value:
        inputs = [self.constant(f"{name}_q", _narrow(weight.levels, weight.format.name))]
        inputs.append(self.constant(f"{name}_s", weight.scale))
        if weight.zero_point is not None:
            inputs.append(
                self.constant(f"{name}_z", _narrow(weight.zero_point, weight.format.name))
            )
        attributes: dict[str, int] = {}
        if isinstance(weight.granularity, (PerAxis, PerBlock)):
            attributes["axis"] = weight.granularity.axis
        if isinstance(weight.granularity, PerBlock):
            attributes["block_size"] = weight.granularity.size
        return self.node("DequantizeLinear", inputs, f"{name}_dq", **attributes)

    def _arithmetic(self, name: str, weight: QuantizedTensor, form: IntegerFormat) -> ir.Value:
        """(level - zero) * scale by Cast, Sub and Mul."""
        zero = np.zeros((), np.float32)
        if weight.zero_point is not None:
            zero = weight.zero_point.astype(np.float32)
        if form.bits >= BYTE:
            levels = self.constant(f"{name}_q", weight.levels)
        else:
            levels = self._unpacked(name, weight.levels.astype(np.int16) - form.low, form.bits)
            zero = zero - np.float32(form.low)
        number = self.node("Cast", [levels], f"{name}_n", to=int(ir.DataType.FLOAT))
        shape = weight.levels.shape
        if isinstance(weight.granularity, PerBlock):
            axis = weight.granularity.axis % len(shape)
            number = self._reshape(name, number, _split(shape, axis, weight.granularity.size))
            scale = np.expand_dims(weight.scale, axis + 1)
            zero = np.expand_dims(zero, axis + 1) if zero.ndim else zero
        else:
            scale = weight.granularity.spread(weight.scale, weight.levels)
            zero = weight.granularity.spread(zero, weight.levels) if zero.ndim else zero
        if np.any(zero):
            number = self.node("Sub", [number, self.constant(f"{name}_z", zero)], f"{name}_c")
        real = self.node("Mul", [number, self.constant(f"{name}_s", scale)], f"{name}_m")
        blocked = isinstance(weight.granularity, PerBlock)
        return self._reshape(name, real, shape) if blocked else real

    def _reshape(self, name: str, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        return self.node(
            "Reshape", [value, self.constant(f"{name}_shape", np.array(shape))], f"{name}_r"
        )

    def _palette(self, name: str, weight: QuantizedTensor, form: PaletteFormat) -> ir.Value:
        """The entries; with a table for each channel they lie behind each other."""
        table = self.constant(f"{name}_table", weight.scale.reshape(-1))
        codes = self._unpacked(name, weight.levels, form.bits)
        index = self.node("Cast", [codes], f"{name}_i", to=int(ir.DataType.INT32))
        if isinstance(weight.granularity, PerAxis):
            channels, size = weight.scale.shape
            starts = size * np.arange(channels, dtype=np.int32)
            offset = self.constant(f"{name}_o", weight.granularity.spread(starts, weight.levels))
            index = self.node("Add", [index, offset], f"{name}_j")
        return self.node("Gather", [table, index], f"{name}_w", axis=0)

    def _unpacked(self, name: str, levels: Array, bits: int) -> ir.Value:
        """uint8 levels from packed ones."""
        levels = levels.astype(np.uint8)
        if bits == BYTE:
            return self.constant(f"{name}_q", levels)
        packed = self.constant(f"{name}_p", pack(levels, bits))
        shape = self.constant(f"{name}_shape", np.array(levels.shape))
        node = unpack_node(self.model, packed, shape, bits)
        node.metadata_props.update({FORMAT_KEY: f"packed{bits}", WEIGHT_KEY: name})
        return self.place(node, f"{name}_u")

    # Building blocks

    def constant(self, name: str, array: Any) -> ir.Value:
        """An initialiser."""
        return add_initializer(self.model.graph, name, np.asarray(array))

    def node(self, op_type: str, inputs: list[ir.Value], name: str, **attributes: Any) -> ir.Value:
        """A standard node of one output, behind what it reads, before everything else."""
        return self.place(ir.node(op_type, inputs, attributes=attributes), name)

    def place(self, node: ir.Node, name: str) -> ir.Value:
        """Any node of one output, likewise."""
        graph = self.model.graph
        node.name = fresh_name(graph, name)
        node.outputs[0].name = node.name
        before = [p for v in node.inputs if v is not None and (p := v.producer()) is not None]
        if before:
            graph.insert_after(before[0], node)
        else:
            graph.insert_before(graph[0], node)
        return node.outputs[0]


def forget_formats(model: ir.Model) -> None:
    """Let only the last node of an unpacking say what it is: the others need not repeat it."""
    for node in model.graph.all_nodes():
        name = node.metadata_props.get(WEIGHT_KEY)
        if name is not None and node.outputs[0].name != f"{name}_u":
            del node.metadata_props[FORMAT_KEY], node.metadata_props[WEIGHT_KEY]


def _split(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    """[..., n, ...] as [..., n / size, size, ...]."""
    assert shape[axis] % size == 0
    return (*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :])


def _narrow(levels: Array, name: str) -> Array:
    """Levels of less than a byte in the type that is written without gaps."""
    return levels.astype(_NARROW[name]) if name in _NARROW else levels


def raise_opset(model: ir.Model, version: int) -> None:
    """Let the model use types of a newer opset; the operators before it kept their meaning.

    Raises:
        ModelError: a node would mean something else there.

    """
    if opset(model) >= version:
        return
    changed = next((n for n in all_nodes(model) if is_op(n, "GroupNormalization")), None)
    if changed is not None:
        raise ModelError(
            f"node {changed.name} (GroupNormalization) has another meaning from opset 21 on, which "
            "this format needs; convert the model first or choose int8"
        )
    model.opset_imports[""] = version
    for function in model.functions.values():
        function.opset_imports[""] = version
