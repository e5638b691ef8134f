"""The engines that people would deploy, each as a function to call; at one thread.

    python benchmarks/native/peers.py PEER MODEL FEEDS.npz

runs one of them once: the benchmark asks so before it lets an engine into its own process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Feeds = dict[str, np.ndarray]
    Run = Callable[[], Any]


def onnxruntime(path: Path, feeds: Feeds) -> Run:
    """All optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def openvino(path: Path, feeds: Feeds) -> Run:
    """In float32."""
    return _openvino(path, feeds, {"INFERENCE_PRECISION_HINT": "f32"})


def openvino_default(path: Path, feeds: Feeds) -> Run:
    """As it decides by itself: bfloat16 where the processor has it."""
    return _openvino(path, feeds, {})


def _openvino(path: Path, feeds: Feeds, options: dict[str, Any]) -> Run:
    import openvino as ov

    core = ov.Core()
    config = {**options, "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(str(path)), "CPU", config).create_infer_request()
    for name, value in feeds.items():
        request.set_tensor(name, ov.Tensor(value))
    return request.infer


def litert(path: Path, feeds: Feeds) -> Run:
    """A TFLite file; its inputs are set once."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    values = list(feeds.values())
    for detail, value in zip(interpreter.get_input_details(), values, strict=True):
        interpreter.resize_tensor_input(detail["index"], value.shape)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), values, strict=True):
        interpreter.set_tensor(detail["index"], value)
    return interpreter.invoke


def ncnn(path: Path, feeds: Feeds) -> Run:
    """Converted by pnnx, float32; inputs lose the batch axis."""
    import ncnn as library
    from pnnx import EXEC_PATH

    param = path.with_suffix(".ncnn.param")
    if not param.exists():
        shapes = ",".join(
            f"[{','.join(map(str, v.shape))}]" + ("i64" if v.dtype == np.int64 else "")
            for v in feeds.values()
        )
        command = [EXEC_PATH, str(path), f"inputshape={shapes}", "fp16=0"]
        subprocess.run(command, capture_output=True, check=True, timeout=300, cwd=path.parent)
    net = library.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False
    if net.load_param(str(param)) or net.load_model(str(path.with_suffix(".ncnn.bin"))):
        raise ValueError("ncnn does not load it")
    mats = [library.Mat(np.ascontiguousarray(v[0])).clone() for v in feeds.values()]
    count = sum(line.split()[0] == "Input" for line in param.read_text().splitlines()[2:])
    if count != len(mats) or any(v.shape[0] != 1 for v in feeds.values()):
        raise ValueError("ncnn has other inputs")

    def run() -> Any:
        extractor = net.create_extractor()
        for number, mat in enumerate(mats):
            extractor.input(f"in{number}", mat)
        return extractor.extract("out0")[1]

    if run().empty():
        raise ValueError("ncnn computes nothing")
    return run


def mnn(path: Path, feeds: Feeds) -> Run:
    """Converted by the extension module, not by its command, which installs and sends things."""
    made = path.with_suffix(".mnn")
    if not made.exists():
        arguments = ["mnnconvert", "-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(made)]
        code = f"import _tools; _tools.mnnconvert({[*arguments, '--bizCode', 'x']!r})"
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=300)
    import MNN
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    manager = MNN.nn.create_runtime_manager(({"backend": 0, "precision": "high", "numThread": 1},))
    net = MNN.nn.load_module_from_file(
        str(made), list(feeds), [o.name for o in graph.output], runtime_manager=manager
    )
    inputs = []
    for value in feeds.values():
        variable = MNN.expr.placeholder(list(value.shape), MNN.expr.NCHW, _mnn_type(value.dtype))
        variable.write(value.astype(np.int32) if value.dtype == np.int64 else value)
        inputs.append(variable)
    return lambda: [v.read() for v in net.onForward(inputs)]


def _mnn_type(dtype: Any) -> Any:
    import MNN

    return MNN.expr.int if dtype == np.int64 else MNN.expr.float


PEERS = {
    "ORT": onnxruntime, "OpenVINO": openvino, "OV bf16": openvino_default, "LiteRT": litert,
    "ncnn": ncnn, "MNN": mnn,
}  # fmt: skip


def main() -> int:
    """One run in this process, which may crash."""
    peer, path, feeds = sys.argv[1:]
    with np.load(feeds) as data:
        PEERS[peer](Path(path), dict(data))()
    return 0


if __name__ == "__main__":
    sys.exit(main())
