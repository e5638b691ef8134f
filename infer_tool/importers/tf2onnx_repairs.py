"""Inside TensorFlow's process: what tf2onnx writes wrongly without saying so."""

from __future__ import annotations

from typing import Any

import numpy as np


def register_repairs() -> None:
    """Take the place of tf2onnx's own handlers, for this process."""
    from tf2onnx.handler import tf_op

    tf_op("Erfc")(Erfc)
    tf_op("OneHot")(OneHot)


class Erfc:
    """Of the exact GELU; tf2onnx copies it through as an operator that ONNX does not have."""

    @classmethod
    def version_18(cls, ctx: Any, node: Any, **_: Any) -> None:
        """1 - Erf."""
        from tf2onnx import utils

        dtype, shape = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0])
        (source,), outputs, name = node.input, list(node.output), node.name
        ctx.remove_node(name)
        one = _constant(ctx, np.ones((), utils.map_onnx_to_numpy_type(dtype)))
        right = ctx.make_node("Erf", [source]).output[0]
        ctx.make_node(
            "Sub", [one, right], name=name, outputs=outputs, shapes=[shape], dtypes=[dtype]
        )


class OneHot:
    """TensorFlow: an index outside 0..depth-1 selects nothing; ONNX counts negative ones back."""

    @classmethod
    def version_18(cls, ctx: Any, node: Any, **_: Any) -> None:
        """Where(indices == 0..depth-1 along the new axis, on, off)."""
        dtype, shape = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0])
        outputs, name, axis = list(node.output), node.name, node.get_attr_value("axis", -1)
        indices, depth, on, off = node.input
        rank = ctx.get_rank(indices)
        if rank is None:
            raise ValueError(f"one_hot {name!r} has indices of unknown rank")
        after = 0 if axis == -1 else rank - axis
        ctx.remove_node(name)
        places = ctx.make_node("Range", [_constant(ctx, 0), _int64(ctx, depth), _constant(ctx, 1)])
        spread = ctx.make_node(
            "Reshape", [places.output[0], _constant(ctx, np.array([-1] + [1] * after, np.int64))]
        )
        wide = ctx.make_node(
            "Unsqueeze", [_int64(ctx, indices), _constant(ctx, np.array([axis], np.int64))]
        )
        is_here = ctx.make_node("Equal", [wide.output[0], spread.output[0]])
        ctx.make_node(
            "Where",
            [is_here.output[0], on, off],
            name=name,
            outputs=outputs,
            shapes=[shape],
            dtypes=[dtype],
        )


def _constant(ctx: Any, value: Any) -> str:
    from tf2onnx import utils

    array = np.asarray(value, np.int64) if isinstance(value, int) else value
    name: str = ctx.make_const(utils.make_name("constant"), array).output[0]
    return name


def _int64(ctx: Any, name: str) -> str:
    from onnx import TensorProto

    cast: str = ctx.make_node("Cast", [name], attr={"to": TensorProto.INT64}).output[0]
    return cast
