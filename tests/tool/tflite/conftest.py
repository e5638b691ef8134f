"""Small TFLite files, from TensorFlow's converter or built by hand, and LiteRT to compare with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from infer_runtime import Session
from infer_tool.importers import ImportOptions, import_source

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class LiteRT:
    """LiteRT in this process, for files that we made."""

    def __init__(self, path: Path, **options: object) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError:
            Interpreter = pytest.importorskip("tensorflow").lite.Interpreter
        self.interpreter = Interpreter(str(path), num_threads=1, **options)

    def run(self, feeds: dict[str, np.ndarray], order: list[str]) -> list[np.ndarray]:
        """Outputs in the order of the file; feeds are given in the order of its inputs."""
        inputs = self.interpreter.get_input_details()
        for detail, name in zip(inputs, order, strict=True):
            self.interpreter.resize_tensor_input(detail["index"], feeds[name].shape)
        self.interpreter.allocate_tensors()
        self.interpreter.reset_all_variables()
        for detail, name in zip(inputs, order, strict=True):
            self.interpreter.set_tensor(detail["index"], feeds[name])
        self.interpreter.invoke()
        return [
            np.asarray(self.interpreter.get_tensor(detail["index"])).copy()
            for detail in self.interpreter.get_output_details()
        ]


def samples(shape: tuple[int, ...], dtype: np.dtype, seed: int) -> np.ndarray:
    """All integers of 8 bits, small ones of other integers, normal numbers off zero."""
    random = np.random.default_rng(seed)
    if dtype in (np.int8, np.uint8, np.int16):
        info = np.iinfo(dtype)
        return random.integers(info.min, info.max, shape, dtype, endpoint=True)
    if np.issubdtype(dtype, np.integer):
        return np.asarray(random.integers(1, 9, shape), dtype)
    return (random.normal(size=shape) + 0.25).astype(dtype)


def run_onnxruntime(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Node by node, as the graph is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.fixture
def agree() -> Callable[..., ir.Model]:
    """Our import in our runtime and in ONNX Runtime gives what LiteRT gives."""

    def check(
        path: Path, tolerance: float = 2e-6, batch: int = 1, seeds: int = 2, steps: int = 0
    ) -> ir.Model:
        model = import_source(str(path), ImportOptions()).model
        session, litert = Session(model), LiteRT(path)
        order = [i.name for i in session.inputs]
        count = len(litert.interpreter.get_output_details())
        for seed in range(seeds):
            feeds = {
                i.name: samples(
                    tuple(d if isinstance(d, int) else batch for d in i.shape), i.dtype, seed
                )
                for i in session.inputs
            }
            wanted = litert.run(feeds, order)
            for got in (session.run(feeds), run_onnxruntime(model, feeds)):
                # Outputs of a signature come in another order than those of the file.
                _match(wanted, list(got.values())[:count], tolerance)
        return model

    return check


def _match(wanted: list[np.ndarray], got: list[np.ndarray], tolerance: float) -> None:
    left = list(wanted)
    for value in got:
        fits = [i for i, w in enumerate(left) if _close(w, value, tolerance)]
        assert fits, f"{value.dtype}{value.shape}: {value.reshape(-1)[:5]} of {left}"
        left.pop(fits[0])
    assert not left


def _close(wanted: np.ndarray, got: np.ndarray, tolerance: float) -> bool:
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return False
    if wanted.dtype.kind in "iub":
        return bool(np.array_equal(wanted, got))
    largest = np.abs(wanted).max(initial=0)
    return bool(np.allclose(got, wanted, rtol=0, atol=tolerance * max(float(largest), 1e-6)))


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Path]:
    """A function of TensorFlow as a TFLite file, in float or quantised to int8."""
    tf = pytest.importorskip("tensorflow")

    def make(function, *shapes, int8=False, dtypes=None, settings=None, name="m.tflite") -> Path:
        dtypes = dtypes or [tf.float32] * len(shapes)
        specs = [tf.TensorSpec(s, d) for s, d in zip(shapes, dtypes, strict=True)]
        module = tf.Module()
        module.f = tf.function(function, input_signature=specs, autograph=False)
        concrete = module.f.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
        if int8:
            _quantise(tf, converter, shapes)
        for key, value in (settings or {}).items():
            setattr(converter, key, value)
        path = tmp_path / name
        path.write_bytes(converter.convert())
        return path

    return make


def _quantise(tf, converter, shapes) -> None:
    fixed = [tuple(d or 1 for d in shape) for shape in shapes]
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [samples(shape, np.dtype(np.float32), 100 + i) for shape in fixed] for i in range(12)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """A file from tensors and operators by hand, for what the converter does not write.

    A tensor is (shape, type or array[, attributes]); an operator is (name, inputs, outputs,
    options), options being a class of the schema with its values.
    """
    pytest.importorskip("tensorflow")
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    def make(tensors, operators, inputs, outputs, others=(), name="built.tflite") -> Path:
        model = schema.ModelT()
        model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
        model.buffers[0].data = []
        graphs = [(tensors, operators, inputs, outputs), *others]
        model.subgraphs = [_subgraph(schema, model, *graph) for graph in graphs]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        path = tmp_path / name
        path.write_bytes(bytes(builder.Output()))
        return path

    return make


def _subgraph(schema, model, tensors, operators, inputs, outputs):
    graph = schema.SubGraphT()
    graph.tensors = [_tensor(schema, model, i, *t) for i, t in enumerate(tensors)]
    graph.inputs, graph.outputs, graph.name = list(inputs), list(outputs), b"main"
    graph.operators = [_operator(schema, model, *o) for o in operators]
    return graph


def _tensor(schema, model, index, shape, value, attributes=None):
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = f"t{index}".encode(), list(shape), 0
    if isinstance(value, np.ndarray):
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer, tensor.type = len(model.buffers) - 1, _type(schema, value.dtype.name)
    else:
        tensor.type = _type(schema, value)
    for key, content in (attributes or {}).items():
        setattr(tensor, key, content)
    return tensor


def _type(schema, name: str) -> int:
    return getattr(schema.TensorType, {"bool": "BOOL"}.get(name, name.upper()))


def _operator(schema, model, name, inputs, outputs, options=None):
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name.partition(":")[0])
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
    if name.startswith("CUSTOM"):
        code.customCode = name.partition(":")[2].encode()
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = list(inputs), list(outputs)
    if options is not None:
        kind, values = options
        operator.builtinOptions = getattr(schema, f"{kind}T")()
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        for key, value in values.items():
            setattr(operator.builtinOptions, key, value)
    return operator


@pytest.fixture
def quantised() -> Callable[..., object]:
    """Quantisation parameters for `build`."""
    pytest.importorskip("tensorflow")
    from tensorflow.lite.python import schema_py_generated as schema

    def make(scale, zero, axis=0):
        found = schema.QuantizationParametersT()
        found.scale, found.zeroPoint, found.quantizedDimension = scale, zero, axis
        return found

    return make


@pytest.fixture
def schema() -> SimpleNamespace:
    """The generated classes of the schema."""
    pytest.importorskip("tensorflow")
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated
