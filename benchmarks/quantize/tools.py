"""One quantiser on one file, in this process: `python tools.py TOOL SOURCE CALIBRATION.npz RESULT`.

Prints the seconds from reading to writing, without the import of the tool. The .npz holds one
array, samples first, under the name of the model's input.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 4


def samples(path: str) -> tuple[str, Any]:
    """Name of the input and all its samples."""
    with np.load(path) as saved:
        name = saved.files[0]
        return name, saved[name]


def infertool(source: str, calibration: str, result: str) -> float:
    """Ours with its defaults, all verification and an evaluation included."""
    from infer_tool import quantize

    start = time.perf_counter()
    quantize(
        source, result, calib=calibration, eval=calibration, calib_samples=10**6,
        samples=BATCH, runs=0, force=True, quiet=True,
    )  # fmt: skip
    return time.perf_counter() - start


def onnxruntime(method: str) -> Callable[[str, str, str], float]:
    """ONNX Runtime's quantizer: per-channel QDQ on a preprocessed model, as its guide says."""

    def run(source: str, calibration: str, result: str) -> float:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process

        name, data = samples(calibration)

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self.feeds: Iterator[dict[str, Any]] = ({name: x[None]} for x in data)

            def get_next(self) -> dict[str, Any] | None:
                return next(self.feeds, None)

        start = time.perf_counter()
        prepared = f"{result}.prepared.onnx"
        quant_pre_process(source, prepared)
        quantize_static(
            prepared, result, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
        )  # fmt: skip
        return time.perf_counter() - start

    return run


def nncf(preset: str, *, accurate: bool = False) -> Callable[[str, str, str], float]:
    """NNCF on ONNX; `accurate` asks for its full bias correction."""

    def run(source: str, calibration: str, result: str) -> float:
        import nncf as tool
        import onnx

        name, data = samples(calibration)
        start = time.perf_counter()
        quantized = tool.quantize(
            onnx.load(source),
            tool.Dataset([{name: x[None]} for x in data]),
            preset=tool.QuantizationPreset[preset],
            subset_size=len(data),
            fast_bias_correction=not accurate,
        )
        onnx.save(quantized, result)
        return time.perf_counter() - start

    return run


def nncf_openvino(source: str, calibration: str, result: str) -> float:
    """NNCF on OpenVINO's own format; writes RESULT as .xml, its weights beside it as .bin."""
    import nncf as tool
    import openvino

    name, data = samples(calibration)
    start = time.perf_counter()
    quantized = tool.quantize(
        openvino.Core().read_model(source),
        tool.Dataset([{name: x[None]} for x in data]),
        preset=tool.QuantizationPreset.MIXED,
        subset_size=len(data),
    )
    openvino.save_model(quantized, result, compress_to_fp16=False)
    return time.perf_counter() - start


def onnxsim(*, full_graph: bool) -> Callable[[str, str, str], float]:
    """onnxsim's quantizer, min-max ranges as by default; also of what is between the layers."""

    def run(source: str, calibration: str, result: str) -> float:
        import onnx
        from onnxsim import quantize_static

        name, data = samples(calibration)
        start = time.perf_counter()
        feeds = [{name: x[None]} for x in data]
        onnx.save(quantize_static(source, calibration_data=feeds, full_graph=full_graph), result)
        return time.perf_counter() - start

    return run


TOOLS: dict[str, Callable[[str, str, str], float]] = {
    "infertool": infertool,
    "onnxruntime min-max": onnxruntime("MinMax"),
    "onnxruntime entropy": onnxruntime("Entropy"),
    "onnxruntime percentile": onnxruntime("Percentile"),
    "nncf performance": nncf("PERFORMANCE"),
    "nncf mixed": nncf("MIXED"),
    "nncf mixed, full bias correction": nncf("MIXED", accurate=True),
    "nncf mixed on openvino": nncf_openvino,
    "onnxsim": onnxsim(full_graph=False),
    "onnxsim, full graph": onnxsim(full_graph=True),
}

if __name__ == "__main__":
    print(TOOLS[sys.argv[1]](*sys.argv[2:]))
