"""Operators with integer weights and real values (dynamic range quantisation).

LiteRT quantises their values while it runs; the imported graph multiplies real values with
dequantised weights, which is what the file states and is closer to the model it was made from. For
a comparison LiteRT gets a copy of the file with these weights as real numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_tool.importers.tflite.constants import constant
from infer_tool.importers.tflite.quantised import is_quantised, real_array

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from infer_tool.importers.tflite.schema import File, Operator, Tensor

_OPERATORS = {
    "BATCH_MATMUL", "BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "CONV_2D",
    "CONV_3D", "DEPTHWISE_CONV_2D", "EMBEDDING_LOOKUP", "FULLY_CONNECTED", "LSTM", "RNN", "SVDF",
    "TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN",
}  # fmt: skip


def hybrid_operators(file: File) -> int:
    """How many operators multiply real values with integer weights."""
    return len({(subgraph, operator.index) for subgraph, operator, _ in _weights(file)})


def with_real_weights(file: File, schema: ModuleType) -> bytes:
    """The file with the weights of its hybrid operators as real numbers.

    Args:
        file: with at least one hybrid operator.
        schema: the generated module of the flatbuffer's classes.

    """
    import flatbuffers

    model: Any = schema.ModelT.InitFromPackedBuf(file.data, 0)
    for number, _, tensor in _weights(file):
        array = constant(file, tensor)
        assert array is not None
        written = model.subgraphs[number].tensors[tensor.index]
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(real_array(tensor, array).tobytes(), np.uint8)
        written.buffer, written.type = len(model.buffers), schema.TensorType.FLOAT32
        written.quantization = written.sparsity = None
        model.buffers.append(buffer)
    builder = flatbuffers.Builder(len(file.data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _weights(file: File) -> Iterator[tuple[int, Operator, Tensor]]:
    for subgraph in file.subgraphs:
        for operator in subgraph.operators:
            if operator.name not in _OPERATORS or not _computes_reals(
                file, operator, subgraph.index
            ):
                continue
            for index in operator.inputs:
                tensor = subgraph.tensors[index]
                if index >= 0 and is_quantised(tensor) and constant(file, tensor) is not None:
                    yield subgraph.index, operator, tensor


def _computes_reals(file: File, operator: Operator, subgraph: int) -> bool:
    tensors = file.subgraphs[subgraph].tensors
    return bool(operator.outputs) and tensors[operator.outputs[-1]].type == "FLOAT32"
