"""Killed, without room, without permission: a whole output or none; the same bytes every time."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infer_tool.files import remove_leftovers, temporary_name

KILLS = int(os.environ.get("INFERTOOL_KILLS", "5"))  # a full trial takes 20
COMMANDS = {
    "optimize": ["--level", "2"],
    "quantize": ["--data", "{data}", "--runs", "0", "--calib-samples", "20"],
}


def _command(name: str, model: Path, data: Path, output: Path) -> list[str]:
    options = [word.format(data=data) for word in COMMANDS[name]]
    return [sys.executable, "-m", "infer_tool", name, str(model), "-o", str(output), *options]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_kill_leaves_a_whole_output_or_none(name, tiny, tiny_data, tmp_path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    output = folder / "o.onnx"
    command = _command(name, tiny, tiny_data, output)
    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole, seconds = output.read_bytes(), time.monotonic() - start
    output.unlink()
    moments = random.Random(5)
    for _ in range(KILLS):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.2, 1.0) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not output.exists() or output.read_bytes() == whole
        output.unlink(missing_ok=True)
        assert all(p.name.startswith(".o.onnx.") for p in folder.iterdir())
    subprocess.run(command, check=True, capture_output=True)
    assert [p.name for p in folder.iterdir()] == ["o.onnx"], "leftovers of the killed are removed"
    assert output.read_bytes() == whole


def test_leftovers_of_the_living_stay(tmp_path) -> None:
    output = tmp_path / "o.onnx"
    mine = temporary_name(output)
    mine.touch()
    dead = tmp_path / ".o.onnx.999999999-abc.tmp"
    folder = tmp_path / ".o.onnx.999999998-x_y.tmp"
    folder.mkdir()
    other = tmp_path / ".p.onnx.999999999-abc.tmp"
    for path in (dead, other, folder / "part"):
        path.touch()
    remove_leftovers(output)
    assert sorted(tmp_path.iterdir()) == sorted([mine, other])


def _in_namespace(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run with mounts of its own."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    command = [unshare, "-rm", "sh", "-ec"]
    if subprocess.run(
        [*command, "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False
    ).returncode:
        pytest.skip("no mounts of one's own here")
    return subprocess.run(
        [*command, script, "sh", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", list(COMMANDS))
@pytest.mark.parametrize(
    ("mount", "words"),
    [("size=4k", "No space left"), ("ro", "Read-only file system")],
    ids=["full", "read-only"],
)
def test_no_room(name, mount, words, tiny, tiny_data, tmp_path) -> None:
    """A file system that is full, or that refuses files: status 2, one line, nothing there."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    script = (
        'folder=$1; options=$2; shift 2; mount -t tmpfs -o "$options" tmpfs "$folder"; '
        'case $options in size*) dd if=/dev/zero of="$folder/filler" bs=4k count=1 2>/dev/null || true;; esac; '
        'set +e; "$@"; echo "status $?"; ls -A "$folder"'
    )
    command = _command(name, tiny, tiny_data, folder / "o.onnx")
    result = _in_namespace(script, str(folder), mount, *command)
    lines = result.stdout.splitlines()
    assert "status 2" in lines, result.stderr
    assert lines[lines.index("status 2") + 1 :] in ([], ["filler"])
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert "o.onnx" in errors[0]


MLP, DIGITS = "{samples}/digits_mlp.onnx", "{samples}/digits.npz"
QUANTIZE = ["quantize", MLP, "--data", DIGITS, "--runs", "0"]
TRAINED = [MLP, "--data", DIGITS, "--runs", "0", "--epochs", "1"]
WRITERS = {
    "convert": ["convert", "{samples}/digits_mlp.pt2"],
    "optimize": ["optimize", "{samples}/digits_cnn.onnx"],
    "c": ["convert", MLP, "--to", "c", "--shape", "image:2x1x8x8"],
    "int8": [*QUANTIZE],
    "awq": [*QUANTIZE, "--scheme", "int4-weight", "--algorithm", "awq"],
    "w4a8": [*QUANTIZE, "--scheme", "w4a8"],
    "dynamic": [*QUANTIZE, "--scheme", "int8-dynamic"],
    "int4": [*QUANTIZE, "--scheme", "int4-weight"],
    "hqq": [*QUANTIZE, "--scheme", "uint3-weight", "--algorithm", "hqq"],
    "fp8": [*QUANTIZE, "--scheme", "fp8-weight"],
    "palette": [*QUANTIZE, "--scheme", "palette3-weight"],
    "fp16": [*QUANTIZE, "--scheme", "fp16"],
    "synthetic": ["quantize", MLP, "--calib", "synthetic", "--eval", DIGITS, "--runs", "0"],
    "trained": [*QUANTIZE, "--scheme", "w4a4", "--train", "--epochs", "1"],
    "prune": ["prune", *TRAINED, "--target-macs", "60%"],
    "sparse": ["prune", *TRAINED, "--sparsity", "70%"],
    "distill": ["distill", *TRAINED, "--shrink", "0.5"],
    "cluster": ["cluster", *TRAINED, "--clusters", "8"],
    "factorize": ["factorize", *TRAINED, "--target-params", "70%"],
    "binarize": ["binarize", *TRAINED],
}
EACH = (
    "import json, sys; from infer_tool.cli import main; "
    "sys.exit(max(main(words) for words in json.load(sys.stdin)))"
)


def _writer(name: str, samples: Path, output: Path) -> list[str]:
    return [*(word.format(samples=samples) for word in WRITERS[name]), "-o", str(output)]


def _content(output: Path) -> dict[str, bytes]:
    files = [output] if output.is_file() else sorted(output.iterdir())
    return {file.name.removeprefix(output.name): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def elsewhere(samples, tmp_path_factory) -> Path:
    """What every writer makes in one other process with another hash seed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    commands = [_writer(name, samples, folder / name) for name in WRITERS]
    subprocess.run(
        [sys.executable, "-c", EACH], input=json.dumps(commands), text=True,
        env=os.environ | {"PYTHONHASHSEED": "77"}, capture_output=True, check=True,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("name", list(WRITERS))
def test_the_same_bytes_again(cli, name, samples, elsewhere, tmp_path) -> None:
    """Here, in another process with another hash seed, and with `run --locked`."""
    output, report = tmp_path / "o", tmp_path / "report"
    outcome = cli(*_writer(name, samples, output), "--report", report)
    assert outcome.status == 0, outcome.err
    assert _content(output) == _content(elsewhere / name)
    locked = cli("run", "--locked", report / "manifest.json", "--json")
    assert locked.status == 0, locked.err
    assert [row[3] for row in json.loads(locked.out)["details"]["Bytes"]["rows"]] == ["same"]


def test_a_manifest_says_what_it_needs(cli, tiny, tmp_path) -> None:
    report = tmp_path / "report"
    assert cli("optimize", tiny, "-o", tmp_path / "o.onnx", "--report", report).status == 0
    path = report / "manifest.json"
    document = json.loads(path.read_text())
    assert set(document["inputs"]) == {str(tiny)}
    assert document["versions"]["onnx"]
    document["versions"]["onnx"] = "0.1"
    document["outputs"] = dict.fromkeys(document["outputs"], "0" * 64)
    path.write_text(json.dumps(document))
    outcome = cli("run", "--locked", path)
    assert outcome.status == 4
    assert "onnx 0.1 -> " in outcome.err
    tiny.write_bytes(tiny.read_bytes() + b"\x00")
    outcome = cli("run", "--locked", path)
    assert outcome.status == 2
    assert "tiny.onnx" in outcome.err
