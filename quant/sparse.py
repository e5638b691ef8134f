"""Weights with many zeros, stored without them, and the operators that put them back.

Two forms, of which a weight takes the smaller: a bit for each place says what is kept, or a byte
for each kept value says how far it is from the one before. Engines fold both when they load the
file; they compute the zeros like any other number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx_ir as ir

from infer_runtime.evaluate import run_node
from passes.base import is_op
from passes.facts import opset
from passes.graph import add_initializer, constant, is_constant
from passes.remove_unused import RemoveUnused
from quant.domain import DOMAIN, Body, add_function
from quant.packing import pack, unpack, unpacked_bits
from quant.store import FORMAT_KEY, WEIGHT_KEY, Store

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

FARTHEST = 255  # a longer distance takes a zero in between
NODES_BYTES = 1500  # of the operators and names that unpack one weight, where they are inlined
_BITS, _KEY = "Mask", "sparse-"


@dataclass(frozen=True)
class Sparse:
    """A float32 array of `shape` with zeros.

    places: uint8, a bit for each element in C order, or the distances between the kept ones, the
    first counted from one before the start; values: float32, 0 and then what is kept (mask), or
    what is kept (gaps).
    """

    form: Literal["Mask", "Gaps"]
    places: Array
    values: Array
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """What it takes in a file."""
        return int(self.places.nbytes + self.values.nbytes) + NODES_BYTES


def encode(array: Array) -> Sparse:
    """The smaller of the two forms of a float32 array."""
    flat = array.reshape(-1)
    kept = np.flatnonzero(flat)
    mask = Sparse(
        "Mask",
        pack((flat != 0).astype(np.uint8), 1),
        np.concatenate([np.zeros(1, np.float32), flat[kept]]),
        array.shape,
    )
    gaps = _gaps(flat, kept, array.shape)
    return min((mask, gaps), key=lambda s: s.nbytes)


def _gaps(flat: Array, kept: Array, shape: tuple[int, ...]) -> Sparse:
    distances = np.diff(kept, prepend=-1)
    between = (distances - 1) // FARTHEST  # zeros that stand in for a long way
    ends = np.cumsum(between + 1) - 1
    places = np.full(len(kept) + int(between.sum()), FARTHEST, np.uint8)
    places[ends] = distances - FARTHEST * between
    values = np.zeros(len(places), np.float32)
    values[ends] = flat[kept]
    return Sparse("Gaps", places, values, shape)


def decode(sparse: Sparse) -> Array:
    """The inverse of `encode`."""
    size = int(np.prod(sparse.shape))
    if sparse.form == _BITS:
        bits = unpack(sparse.places, 1, (size,)).astype(np.int64)
        return np.asarray(sparse.values[np.cumsum(bits) * bits].reshape(sparse.shape))
    result = np.zeros(size, np.float32)
    result[np.cumsum(sparse.places, dtype=np.int64) - 1] = sparse.values
    return result.reshape(sparse.shape)


def store_sparse(model: ir.Model) -> list[str]:
    """Store the weights of the main graph without their zeros, in place, where that is smaller.

    The weight keeps its name and becomes the output of a call. Returns the names.
    """
    store, done = Store(model), []
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if not is_constant(value) or tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        if value.is_graph_output() or tensor.nbytes <= NODES_BYTES:
            continue
        sparse = encode(tensor.numpy())
        if sparse.nbytes < tensor.nbytes:
            _replace(store, value, sparse)
            done.append(name)
    return done


def _replace(store: Store, value: ir.Value, sparse: Sparse) -> None:
    name = value.name or ""
    inputs = [
        store.constant(f"{name}_p", sparse.places),
        store.constant(f"{name}_shape", np.array(sparse.shape, np.int64)),
        store.constant(f"{name}_v", sparse.values),
    ]
    body = _from_mask if sparse.form == _BITS else _from_gaps
    add_function(store.model, sparse.form, ["places", "shape", "values"], body)
    node = ir.node(sparse.form, inputs, domain=DOMAIN)
    node.metadata_props.update({FORMAT_KEY: f"{_KEY}{sparse.form.lower()}", WEIGHT_KEY: name})
    whole = store.place(node, f"{name}_u")
    whole.shape, whole.type = ir.Shape(sparse.shape), ir.TensorType(ir.DataType.FLOAT)
    value.replace_all_uses_with(whole)
    del store.model.graph.initializers[name]


def restore_dense(model: ir.Model) -> None:
    """Undo `store_sparse` in place, in a file that was read: weights are constants again."""
    version = opset(model)
    for node in list(model.graph):
        if not node.metadata_props.get(FORMAT_KEY, "").startswith(_KEY):
            continue
        array, name = _computed(node.outputs[0], version), node.metadata_props.get(WEIGHT_KEY)
        if array is None or node.outputs[0].is_graph_output():
            continue
        value = add_initializer(model.graph, name or "weight", array)
        node.outputs[0].replace_all_uses_with(value)
    RemoveUnused().apply(model)


def _computed(value: ir.Value | None, version: int) -> Array | None:
    """A value that follows from constants alone."""
    node = None if value is None else value.producer()
    if node is None:
        return constant(value)
    if is_op(node, "Constant"):
        return node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else None
    read = [_computed(v, version) for v in node.inputs]
    found = [a for a in read if a is not None]
    return run_node(node, found, version)[0] if len(found) == len(read) else None


def _from_mask(b: Body) -> ir.Value:
    """The number of ones up to a place is the number of its value; where the bit is 0, it is 0."""
    _, shape, values = b.inputs
    bits = b("Cast", unpacked_bits(b, 1), to=int(ir.DataType.INT32))
    counted = b("CumSum", bits, b.constant(np.array(0)))
    flat = b("Gather", values, b("Mul", counted, bits), axis=0)
    return b("Reshape", flat, shape)


def _from_gaps(b: Body) -> ir.Value:
    places, shape, values = b.inputs
    steps = b("Cast", places, to=int(ir.DataType.INT64))
    ends = b("CumSum", steps, b.constant(np.array(0)))
    index = b("Sub", ends, b.constant(np.array([1])))
    size = b("Reshape", b("ReduceProd", shape), b.constant(np.array([1])))
    zeros = b("ConstantOfShape", size, value=ir.tensor(np.zeros(1, np.float32)))
    return b("Reshape", b("ScatterElements", zeros, index, values, axis=0), shape)
