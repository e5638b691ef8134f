"""TensorFlow SavedModels and Keras files, through tf2onnx in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import weakref
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import LimitError, MissingExtraError, ModelError
from infer_tool.importers import Imported, ImportOptions
from infer_tool.importers import onnx as onnx_files
from infer_tool.importers.tensorflow_convert import input_names, output_name, signature
from infer_tool.quiet import quiet
from infer_tool.reason import LENGTH, reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from infer_tool.importers import Outputs

SECONDS = 1800  # for the conversion; a large model takes minutes
PACKAGES = ("tensorflow", "tf2onnx")
STDERR = 2


def load(source: str, options: ImportOptions) -> Imported:
    """Convert; the names of the signature stay, and TensorFlow itself is the reference.

    Raises:
        ModelError: it cannot be read, or holds operations that ONNX has not.
        MissingExtraError: TensorFlow or tf2onnx is not installed.
        LimitError: the conversion takes too long.

    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(
                f"{package} is not installed; run: pip install 'infertool[tensorflow]'"
            )
    path = Path(source)
    reference = _SignatureReference(source)
    folder = reference.folder
    _convert(path, folder)
    try:
        model = onnx_files.load(str(folder / "model.onnx"), options).model
    except ModelError as error:
        inner = str(error).removeprefix(f"{folder / 'model.onnx'}: ")
        raise ModelError(f"{source}: tf2onnx wrote an invalid model: {inner}") from error
    kind = "keras" if path.is_file() else "saved_model"
    return Imported(model, kind, path, reference)


def _convert(path: Path, folder: Path) -> None:
    module = "infer_tool.importers.tensorflow_convert"
    command = [sys.executable, "-m", module, str(path), str(folder)]
    # The child finds this package where this process did, and asks for no graphics card.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    try:
        result = subprocess.run(
            command, env=environment, capture_output=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise LimitError(f"{path}: tf2onnx did not finish in {SECONDS} s") from error
    if result.returncode:
        lines = result.stderr.decode(errors="replace").strip().splitlines()
        why = lines[-1][:LENGTH] if lines else f"it ended with status {result.returncode}"
        raise ModelError(f"{path}: tf2onnx cannot convert it: {why}")


class _SignatureReference:
    """Runs the signature of `folder`/model on NumPy feeds; loads it when it is first asked.

    The folder is the conversion's and goes when nobody can ask any more.
    """

    def __init__(self, source: str) -> None:
        self.folder = Path(mkdtemp(prefix="infertool-"))
        self._source = source
        self._loaded: Any = None
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def __call__(self, feeds: Mapping[str, Any]) -> Outputs:
        try:
            with quiet(), _no_stderr():
                import tensorflow as tf

                if self._loaded is None:
                    self._loaded = tf.saved_model.load(str(self.folder / "model"))
                function = signature(self._loaded)
                results = function(**{name: tf.constant(v) for name, v in feeds.items()})
        except Exception as error:
            # TensorFlow raises classes of its own and of Python for what it cannot run.
            raise ModelError(
                f"{self._source}: TensorFlow cannot run it: {reason(error)}"
            ) from error
        names = input_names(function)
        return {output_name(name, names): value.numpy() for name, value in results.items()}


@contextmanager
def _no_stderr() -> Iterator[None]:
    """TensorFlow's C++ logs before its own log level is read."""
    sys.stderr.flush()
    kept, nothing = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, STDERR)
    try:
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)
        os.close(nothing)
