"""One optimiser on one file, in this process: `python tools.py TOOL SOURCE RESULT [NAME:SHAPE...]`.

Prints the seconds from reading to writing, without the import of the tool.
"""

from __future__ import annotations

import sys
import time


def infertool(source: str, result: str, shapes: tuple[str, ...]) -> float:
    """Ours, with all its verification on every engine."""
    from infer_tool import optimize

    start = time.perf_counter()
    optimize(source, result, shape=shapes, force=True)
    return time.perf_counter() - start


def onnxsim(source: str, result: str, _: tuple[str, ...]) -> float:
    """With its defaults."""
    import onnx
    import onnxsim

    start = time.perf_counter()
    model, _ = onnxsim.simplify(onnx.load(source))
    onnx.save(model, result)
    return time.perf_counter() - start


def onnxslim(source: str, result: str, _: tuple[str, ...]) -> float:
    """With its defaults."""
    import onnxslim

    start = time.perf_counter()
    onnxslim.slim(source, result)
    return time.perf_counter() - start


def onnxscript(source: str, result: str, _: tuple[str, ...]) -> float:
    """Its optimiser: folding and all default rules."""
    import onnx_ir as ir
    from onnxscript.optimizer import optimize
    from onnxscript.rewriter import rewrite

    start = time.perf_counter()
    model = ir.load(source)
    optimize(model)
    ir.save(rewrite(model), result)
    return time.perf_counter() - start


def onnxruntime(source: str, result: str, _: tuple[str, ...]) -> float:
    """Its basic level, which uses standard operators only."""
    import onnxruntime as ort

    start = time.perf_counter()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = result
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return time.perf_counter() - start


TOOLS = (infertool, onnxsim, onnxslim, onnxscript, onnxruntime)

if __name__ == "__main__":
    run = next(t for t in TOOLS if t.__name__ == sys.argv[1])
    print(f"seconds {run(sys.argv[2], sys.argv[3], tuple(sys.argv[4:])):.6f}")
