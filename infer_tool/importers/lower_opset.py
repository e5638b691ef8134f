"""Files newer than the engines: their number goes down where no node needs the newer form."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import onnx.defs
import onnx_ir as ir

from infer_runtime.errors import UnsupportedOpError
from infer_tool.quiet import quiet
from passes.facts import opset

if TYPE_CHECKING:
    from collections.abc import Iterable


def lower_opset(model: ir.Model, nodes: Iterable[ir.Node], target: int, source: str) -> None:
    """Declare the opset `target`, if every node means there what it means now.

    Between 26 and 28 operators were added, types were allowed, attributes came with defaults that
    change nothing; and Mod took floats without fmod. A node that uses none of it stays as it is.

    Raises:
        UnsupportedOpError: naming the operators that need the newer opset, and how often.

    """
    from onnx_ir.passes.common import ShapeInferencePass

    current = opset(model)
    with quiet():
        ShapeInferencePass()(model)
    standard = [node for node in nodes if not node.domain]
    needing = [node for node in standard if not _fits(node, current, target)]
    if needing:
        counts = Counter(node.op_type for node in needing)
        listed = ", ".join(f"{op} ({count}x)" for op, count in counts.most_common())
        raise UnsupportedOpError(
            f"{source}: opset {current}: {listed} cannot be written in opset {target}, first at "
            f"node {needing[0].name!r}; export the model with opset_version={target}"
        )
    for node in standard:
        _drop_newer_attributes(node, target)
    model.graph.opset_imports[""] = target
    for function in model.functions.values():
        function.opset_imports[""] = target


def _fits(node: ir.Node, current: int, target: int) -> bool:
    try:
        new = onnx.defs.get_schema(node.op_type, current, "")
        old = onnx.defs.get_schema(node.op_type, target, "")
    except onnx.defs.SchemaError:
        return False
    if new.since_version == old.since_version:
        return True
    if any(a not in old.attributes and _is_set(node, new, a) for a in node.attributes):
        return False
    if not _types_fit(node, old):
        return False
    return node.op_type != "Mod" or _is_integer(node) or node.attributes.get_int("fmod", 0) == 1


def _drop_newer_attributes(node: ir.Node, target: int) -> None:
    """They have their defaults: that is what the older form does without them."""
    known = onnx.defs.get_schema(node.op_type, target, "").attributes
    for name in [n for n in node.attributes if n not in known]:
        del node.attributes[name]


def _is_set(node: ir.Node, schema: onnx.defs.OpSchema, name: str) -> bool:
    """Another value than the default, which is what the older form does."""
    if name not in schema.attributes:
        return True
    default = onnx.helper.get_attribute_value(schema.attributes[name].default_value)
    value = node.attributes[name].value
    return bool(value != (default.decode() if isinstance(default, bytes) else default))


def _types_fit(node: ir.Node, schema: onnx.defs.OpSchema) -> bool:
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    sides = ((node.inputs, schema.inputs), (node.outputs, schema.outputs))
    for values, parameters in sides:
        for index, value in enumerate(values):
            if value is None or not isinstance(value.type, ir.TensorType):
                continue
            types = allowed.get(parameters[min(index, len(parameters) - 1)].type_str)
            if types is not None and f"tensor({_written(value.type.dtype)})" not in types:
                return False
    return True


def _written(dtype: ir.DataType) -> str:
    """As schemas write it."""
    return onnx.helper.tensor_dtype_to_string(int(dtype)).removeprefix("TensorProto.").lower()


def _is_integer(node: ir.Node) -> bool:
    dtype = node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None
    return dtype is not None and dtype.is_integer()
