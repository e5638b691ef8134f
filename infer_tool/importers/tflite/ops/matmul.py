"""Products of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call


@op("FULLY_CONNECTED")
def fully_connected(c: Call) -> None:
    """y = x weight^T + bias; weights are [out, in]."""
    if c.options.integer("weights_format"):
        raise c.unsupported("weights in a shuffled format")
    weight = c.real(1, (1, 0))
    inner = c.sizes(weight)[0]
    x = c.real(0)
    keeps = c.options.flag("keep_num_dims")
    if not keeps and (x.shape is None or len(x.shape) != 2 or x.shape[1] != inner):
        if inner is None:
            raise c.unsupported("the size of its weights is not known")
        x = c.emit("Reshape", x, c.build.ints(-1, inner))
    y = c.emit("MatMul", x, weight)
    if c.has(2):
        y = c.emit("Add", y, c.real(2))
    c.put(c.activated(y))


@op("BATCH_MATMUL")
def batch_matmul(c: Call) -> None:
    """The product of the last two axes; adjoint operands are transposed first."""
    left = _turned(c, c.real(0)) if c.options.flag("adjoint_x") else c.real(0)
    right = _turned(c, c.real(1)) if c.options.flag("adjoint_y") else c.real(1)
    c.put(c.emit("MatMul", left, right))


def _turned(c: Call, x: ir.Value) -> ir.Value:
    rank = c.rank(x)
    if rank < 2:
        raise c.unsupported(f"an operand of {rank} axes")
    return c.permuted(x, (*range(rank - 2), rank - 1, rank - 2))
