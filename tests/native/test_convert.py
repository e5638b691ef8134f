"""`infertool convert --to c`: whole folders or nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from infer_runtime import Session
from infer_tool.cli import main
from infer_tool.engines.native import has_compiler

MODEL = Path(__file__).parents[2] / "sample_models" / "digits_mlp.onnx"
needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C compiler here")


def run(*arguments: object) -> int:
    return main([*(str(a) for a in arguments), "--quiet"])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    assert run("convert", MODEL, "-o", out, "--to", "c", "--shape", "image:1x1x8x8") == 0
    return out


@needs_compiler
def test_the_example_prints_what_the_model_computes(made: Path, tmp_path: Path) -> None:
    """Compiled by the line of the README, with every warning an error."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no gcc or clang here")
    assert {p.name for p in made.iterdir()} == {
        "model.c", "model.h", "model.weights", "main.c", "CMakeLists.txt", "README.md",
    }  # fmt: skip
    line = next(x for x in (made / "README.md").read_text().splitlines() if x.startswith("cc "))
    flags = line.split()[1:-2]
    example = tmp_path / "example"
    command = [compiler, *flags, "-Wall", "-Wextra", "-Werror", "main.c", "model.c", "-lm"]
    subprocess.run([*command, "-o", example], cwd=made, check=True)
    image = np.random.default_rng(0).normal(0.3, 1, (1, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", image)
    done = subprocess.run(
        [example, made / "model.weights", tmp_path / "x.npy"], capture_output=True, text=True
    )
    (wanted,) = Session(MODEL).run({"image": image}).values()
    np.testing.assert_allclose(np.array(done.stdout.split(), float), wanted[0], atol=1e-4)
    for bad in (image.astype(np.float64), image[:, :, :7]):
        np.save(tmp_path / "x.npy", bad)
        done = subprocess.run([example, made / "model.weights", tmp_path / "x.npy"], check=False)
        assert done.returncode == 2


@needs_compiler
def test_an_existing_folder_needs_force(made: Path) -> None:
    options = ("--to", "c", "--shape", "image:1x1x8x8", "--isa", "scalar")
    assert run("convert", MODEL, "-o", made, *options) == 2
    assert run("convert", MODEL, "-o", made, *options, "--force") == 0
    assert "Instructions: scalar" in (made / "README.md").read_text()
    assert [p.name for p in made.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--to", "d"), 2),
        (("--to", "c"), 2),  # the batch is open
        (("--to", "c", "--isa", "mmx"), 2),
        (("--to", "c", "--target", "pdp11"), 2),
        (("--to", "c", "--target", "aarch64-linux", "--isa", "avx2"), 2),
        (("--to", "c", "--max-size", "1kB", "--shape", "image:1x1x8x8"), 1),
    ],
)
def test_a_refusal_leaves_nothing(tmp_path: Path, options: tuple[str, ...], status: int) -> None:
    assert run("convert", MODEL, "-o", tmp_path / "out", *options) == status
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert run("convert", MODEL, "-o", tmp_path, "--to", "c", "--force") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
