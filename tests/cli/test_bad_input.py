"""Every wrong input: one line that names it, the right status, no traceback, no file left."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def _one_line(outcome, status: int, *words: str) -> None:
    assert outcome.status == status, outcome.err
    assert outcome.out == ""
    lines = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in lines[0], lines[0]


def _files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@pytest.fixture
def broken(tmp_path: Path, tiny: Path) -> dict[str, Path]:
    """Things that are not the model they claim to be."""
    folder = tmp_path / "broken"
    folder.mkdir()
    whole = tiny.read_bytes()
    contents = {
        "empty.onnx": b"",
        "truncated.onnx": whole[: len(whole) // 2],
        "text.onnx": b"this is not a model, it is a sentence\n" * 20,
        "pickle.pt2": pickle.dumps({"weights": [1, 2, 3]}),
        "text.pt2": b"hello\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "directory.onnx").mkdir()
    return {p.name: p for p in folder.iterdir()} | {"missing.onnx": folder / "missing.onnx"}


@pytest.mark.parametrize(
    "command", ["convert", "optimize", "quantize", "inspect", "bench", "verify"]
)
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("missing.onnx", 2),
        ("directory.onnx", 2),
        ("empty.onnx", 3),
        ("truncated.onnx", 3),
        ("text.onnx", 3),
        ("pickle.pt2", 3),
        ("text.pt2", 3),
    ],
)
def test_bad_model(cli, tmp_path, tiny_data, broken, command, name, status) -> None:
    path = broken[name]
    arguments = {
        "convert": [path, "-o", tmp_path / "out.onnx"],
        "optimize": [path, "-o", tmp_path / "out.onnx"],
        "quantize": [path, "-o", tmp_path / "out.onnx", "--data", tiny_data],
        "verify": [path, path],
    }.get(command, [path])
    before = _files(tmp_path)
    _one_line(cli(command, *arguments), status, name)
    assert _files(tmp_path) == before


def test_pickle_advice_and_payload(cli, tmp_path) -> None:
    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "payload-ran"),))

    (tmp_path / "evil.pt2").write_bytes(pickle.dumps(Payload()))
    outcome = cli("convert", tmp_path / "evil.pt2", "-o", tmp_path / "out.onnx")
    _one_line(outcome, 3, "evil.pt2", "torch.export.save")
    assert not (tmp_path / "payload-ran").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quantise", "x.onnx"], ["quantise"]),
        (["quantize", "x.onnx", "-o", "y.onnx", "--shceme", "int8"], ["--shceme", "--scheme"]),
        (["quantize", "x.onnx"], ["output"]),
        (["quantize", "x.onnx", "-o", "y.onnx", "--scheme", "int7"], ["int7", "int8"]),
        (["bench"], ["models"]),
        (["convert", "x.onnx", "-o", "y.onnx", "--max-size", "huge"], ["--max-size", "huge"]),
        (["quantize", "x.onnx", "-o", "y.onnx", "--threads", "-1"], ["--threads -1", "at least 0"]),
        (["quantize", "x.onnx", "-o", "y.onnx", "--calib-samples", "0"], ["--calib-samples 0"]),
        (["bench", "x.onnx", "--runs", "0"], ["--runs 0", "at least 1"]),
    ],
)
def test_bad_options(cli, tmp_path, monkeypatch, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    _one_line(cli(*arguments), 2, *words)
    assert _files(tmp_path) == set()


def _data(tmp_path: Path, **arrays: np.ndarray) -> Path:
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    return path


X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": X}, ["image", "x"]),
        ({"x": X[:, :3]}, ["x", "3", "4"]),
        ({"x": X.astype(np.int64)}, ["x", "int64", "float32"]),
        ({"x": np.where(X > 2, np.nan, X)}, ["x", "NaN"]),
        ({"x": X, "labels": np.arange(7)}, ["labels", "7", "200"]),
        ({"x": X[:0]}, ["0"]),
        ({"x": X[:5]}, ["5", "--calib-samples"]),
        ({"x": X, "labels": np.full(200, 9)}, ["labels", "9", "3"]),
    ],
    ids=["names", "shape", "dtype", "nan", "label-count", "empty", "too-few", "label-range"],
)
def test_bad_data(cli, tmp_path, tiny, arrays, words) -> None:
    data = _data(tmp_path, **arrays)
    before = _files(tmp_path)
    outcome = cli("quantize", tiny, "-o", tmp_path / "q.onnx", "--data", data)
    _one_line(outcome, 2, *words)
    assert _files(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "name"), [(b"", "e.npz"), (b"not a zip", "t.npz"), (b"PK\x03\x04oops", "c.npz")]
)
def test_data_file_that_is_none(cli, tmp_path, tiny, content, name) -> None:
    (tmp_path / name).write_bytes(content)
    outcome = cli("quantize", tiny, "-o", tmp_path / "q.onnx", "--data", tmp_path / name)
    _one_line(outcome, 2, name)


def test_missing_data(cli, tmp_path, tiny) -> None:
    outcome = cli("quantize", tiny, "-o", tmp_path / "q.onnx", "--data", tmp_path / "no.npz")
    _one_line(outcome, 2, "no.npz")


def test_no_data_is_refused(cli, tmp_path, tiny) -> None:
    _one_line(cli("quantize", tiny, "-o", tmp_path / "q.onnx"), 2, "--data", "synthetic")
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize("command", ["convert", "optimize", "quantize"])
def test_existing_output(cli, tmp_path, tiny, tiny_data, command) -> None:
    output = tmp_path / "out.onnx"
    output.write_text("precious")
    extra = ["--data", tiny_data, "--calib-samples", "20"] if command == "quantize" else []
    _one_line(cli(command, tiny, "-o", output, *extra), 2, "out.onnx", "--force")
    assert output.read_text() == "precious"
    assert cli(command, tiny, "-o", output, "--force", *extra).status == 0
    assert output.read_bytes()[:8] != b"precious"


def test_sizes_that_do_not_work_are_named(cli, tmp_path) -> None:
    """Reflecting a single element is not possible: the user must say how long the input is."""
    pads = numpy_helper.from_array(np.array([0, 2, 0, 2]), "p")
    graph = helper.make_graph(
        [helper.make_node("Pad", ["x", "p"], ["y"], mode="reflect", name="pad")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [pads],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    _one_line(cli("optimize", path, "-o", tmp_path / "o.onnx"), 3, "x:1x1", "--shape")
    assert cli("optimize", path, "-o", tmp_path / "o.onnx", "--shape", "x:2x9").status == 0


def test_output_is_the_input(cli, tiny) -> None:
    before = tiny.read_bytes()
    _one_line(cli("optimize", tiny, "-o", tiny), 2, "tiny.onnx")
    assert tiny.read_bytes() == before


def test_missing_output_folder(cli, tmp_path, tiny) -> None:
    outcome = cli("optimize", tiny, "-o", tmp_path / "no" / "folder" / "out.onnx")
    _one_line(outcome, 2, "folder")
    assert not (tmp_path / "no").exists()


def test_output_folder_is_a_file(cli, tmp_path, tiny) -> None:
    (tmp_path / "file").write_text("")
    _one_line(cli("optimize", tiny, "-o", tmp_path / "file" / "out.onnx"), 2, "file")


@pytest.mark.skipif(sys.platform == "win32", reason="uses permissions of a POSIX file system")
def test_unwritable_output_folder(cli, tiny) -> None:
    """/proc refuses new files, also to the superuser."""
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    _one_line(cli("optimize", tiny, "-o", "/proc/out.onnx"), 2, "/proc")


@pytest.mark.parametrize(
    ("gate", "name"),
    [
        (["--max-size", "100B"], "max-size"),
        (["--max-drop", "-50%"], "max-drop"),
        (["--min-coverage", "100%", "--exclude", "layer0"], "min-coverage"),
    ],
)
def test_gate_that_fails(cli, tmp_path, tiny, tiny_data, gate, name) -> None:
    arguments = ["-o", tmp_path / "q.onnx", "--data", tiny_data, "--calib-samples", "20"]
    before = _files(tmp_path)
    outcome = cli("quantize", tiny, *arguments, *gate)
    assert outcome.status == 1
    assert f"gate failed: {name}" in outcome.err
    assert "FAILED" in outcome.out
    assert _files(tmp_path) == before


def test_gate_that_fails_as_json(cli, tmp_path, tiny, tiny_data) -> None:
    arguments = ["-o", tmp_path / "q.onnx", "--data", tiny_data, "--calib-samples", "20"]
    outcome = cli("quantize", tiny, *arguments, "--max-size", "1B", "--json")
    document = json.loads(outcome.out)
    assert outcome.status == 1
    assert document["passed"] is False
    assert document["gates"][0]["name"] == "max-size"


def test_failure_as_json(cli, tmp_path) -> None:
    outcome = cli("inspect", tmp_path / "none.onnx", "--json")
    document = json.loads(outcome.out)
    assert outcome.status == document["error"]["exit_code"] == 2
    assert document["passed"] is False


def test_quantised_already(cli, tmp_path, tiny, tiny_data) -> None:
    arguments = ["--data", tiny_data, "--calib-samples", "20"]
    assert cli("quantize", tiny, "-o", tmp_path / "q.onnx", *arguments).status == 0
    outcome = cli("quantize", tmp_path / "q.onnx", "-o", tmp_path / "r.onnx", *arguments)
    _one_line(outcome, 2, "quantised already")


def test_time_budget(cli, tmp_path, tiny, tiny_data) -> None:
    arguments = ["--data", tiny_data, "--calib-samples", "20", "-o", tmp_path / "q.onnx"]
    before = _files(tmp_path)
    outcome = cli("quantize", tiny, *arguments, "--runs", "100000000", "--time-budget", "1s")
    assert outcome.status == 5
    assert "error: the time budget of 1s is spent; no file was written" in outcome.err
    assert _files(tmp_path) == before
    _one_line(cli("quantize", tiny, *arguments, "--time-budget", "soon"), 2, "soon", "90s")
    assert cli("quantize", tiny, *arguments, "--time-budget", "10min").status == 0


def test_max_memory(cli, tiny) -> None:
    _one_line(cli("inspect", tiny, "--max-memory", "lots"), 2, "'lots'", "5MB")
    if sys.platform == "linux":
        _one_line(cli("inspect", tiny, "--max-memory", "1kB"), 2, "this process alone holds")
        assert cli("inspect", tiny, "--max-memory", "64GB").status == 0


def test_terminated_leaves_nothing(tmp_path, tiny) -> None:
    """SIGTERM in the middle of the work: no output, no temporary file."""
    code = (
        "import os, signal, sys\n"
        "from infer_tool import steps\n"
        "from infer_tool.cli import main\n"
        "steps.describe_file = lambda *a: os.kill(os.getpid(), signal.SIGTERM)\n"
        f"sys.exit(main(['optimize', {str(tiny)!r}, '-o', {str(tmp_path / 'o.onnx')!r}]))"
    )
    before = _files(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 130
    assert "nothing was written" in result.stderr
    assert _files(tmp_path) == before


def test_report_folder_is_a_file(cli, tmp_path, tiny) -> None:
    (tmp_path / "file").write_text("")
    _one_line(cli("inspect", tiny, "--report", tmp_path / "file"), 2, "--report", "file")
