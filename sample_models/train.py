"""Train the bundled models, write them and their data, and state what they reach in README.md.

    python sample_models/train.py [NAME ...]     all of them when no name is given

Needs the packages of `pip install -e '.[dev]'`; downloads nothing; every seed is fixed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import digits
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent
THREADS = 2
BEGIN, END = "<!-- written by train.py -->", "<!-- end -->"


@dataclass(frozen=True)
class Sample:
    """A bundled model: its data, and its file in the format of the framework that trained it."""

    name: str
    data: digits.DataFile
    native: str
    build: Callable[[str, digits.Part], None]
    count: Callable[[Path], int]


def main() -> None:
    """Train what was named, then measure every model on its held-out data."""
    parser = argparse.ArgumentParser(description="Train the bundled models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SAMPLES))
    names = parser.parse_args().names or list(SAMPLES)
    if unknown := set(names) - set(SAMPLES):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(SAMPLES)}")
    training, held_out = digits.load()
    for data in {sample.data for sample in SAMPLES.values()}:
        data.save(FOLDER, held_out)
    for name in names:
        SAMPLES[name].build(name, training)
        print(row(SAMPLES[name]))
    write_table([row(sample) for sample in SAMPLES.values()])


def build_torch(name: str, part: digits.Part) -> None:
    """Train a PyTorch model."""
    import torch
    import train_torch

    torch.set_num_threads(THREADS)
    train_torch.build(name, FOLDER, part)


def build_keras(_name: str, part: digits.Part) -> None:
    """Train the Keras model."""
    import tensorflow as tf
    import train_keras

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    train_keras.build(FOLDER, part)


def count_torch(path: Path) -> int:
    """Floating-point weights of an ExportedProgram, running statistics included."""
    import torch

    state: dict[str, Any] = torch.export.load(path).state_dict
    return sum(t.numel() for t in state.values() if t.is_floating_point())


def count_keras(path: Path) -> int:
    """Weights of a Keras model, running statistics included."""
    import tensorflow as tf

    return int(tf.keras.models.load_model(path).count_params())


def accuracy(sample: Sample) -> float:
    """Share of the held-out samples that the ONNX file classifies rightly."""
    import onnxruntime

    session = onnxruntime.InferenceSession(FOLDER / f"{sample.name}.onnx")
    with np.load(FOLDER / sample.data.name, allow_pickle=False) as arrays:
        (scores,) = session.run(None, {sample.data.key: arrays[sample.data.key]})
        return float(np.mean(scores.argmax(1) == arrays["labels"]))


def row(sample: Sample) -> str:
    """The model's line of the table."""
    onnx, native = FOLDER / f"{sample.name}.onnx", FOLDER / f"{sample.name}{sample.native}"
    files = f"`{onnx.name}` | `{native.name}` | `{sample.data.name}`"
    size, parameters = onnx.stat().st_size, sample.count(native)
    return f"| {files} | {100 * accuracy(sample):.2f} % | {parameters:,} | {size:,} |"


def write_table(rows: list[str]) -> None:
    """Put the rows between the two marks of README.md."""
    readme = FOLDER / "README.md"
    head = "| ONNX | framework's own | data | accuracy | parameters | bytes |"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    table = "\n".join([head, "|---|---|---|--:|--:|--:|", *rows])
    readme.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


SAMPLES = {
    sample.name: sample
    for sample in (
        Sample("digits_cnn", digits.NCHW, ".pt2", build_torch, count_torch),
        Sample("digits_mlp", digits.NCHW, ".pt2", build_torch, count_torch),
        Sample("digits_gru", digits.ROWS, ".pt2", build_torch, count_torch),
        Sample("digits_keras", digits.NHWC, ".keras", build_keras, count_keras),
    )
}

if __name__ == "__main__":
    main()
