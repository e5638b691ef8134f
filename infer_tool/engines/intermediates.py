"""Every value inside a graph, on any engine that runs ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime import Session
from infer_tool.engines import open_engine

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    Values = dict[str, np.ndarray[Any, Any]]


def reference_values(model: ir.Model, feeds: Mapping[str, Any]) -> Values:
    """The values of the main graph on the bundled runtime, in order of appearance."""
    found: Values = {}
    Session(model).run(feeds, observe=lambda name, value: found.update({name: value}))
    return found


def engine_values(name: str, model: ir.Model, feeds: Mapping[str, Any], like: Values) -> Values:
    """The same values on an engine: they are made outputs, which keeps it from fusing across them.

    Args:
        name: of an engine that reads ONNX.
        model: is not changed.
        feeds: one run.
        like: the values on the bundled runtime; they say which there are and their types.

    Raises:
        ModelError: the engine refuses the graph.

    """
    if name == "reference":
        return like
    copy = model.clone()
    taken = {v.name for v in (*copy.graph.inputs, *copy.graph.outputs)}
    for node in copy.graph:
        for value in node.outputs:
            if (
                value.name in like
                and value.name not in taken
                and hasattr(like[value.name], "dtype")
            ):
                value.type = ir.TensorType(ir.DataType.from_numpy(like[value.name].dtype))
                copy.graph.outputs.append(value)
                taken.add(value.name)
    return open_engine(name, copy, optimize=False).run(feeds)
