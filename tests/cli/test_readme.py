"""The README's first command, run literally on a clean copy; the second one is what CI runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()


def _commands() -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def _clean_copy(target: Path) -> None:
    """The files of the distribution, without any environment or build left-over."""
    for name in ("infer_runtime", "passes", "quant", "infer_native", "infer_tool", "sample_models"):
        shutil.copytree(
            REPOSITORY / name, target / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(REPOSITORY / name, target / name)


def test_first_command_prints_the_report(tmp_path: Path) -> None:
    _clean_copy(tmp_path)
    keep = ("PATH", "HOME", "PIP_", "SSL_", "LANG")
    environment = {k: v for k, v in os.environ.items() if k.startswith(keep)}
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", _commands()[0]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    for words in ("Quantised", "Accuracy", "Latency", "top1", "quantize: passed"):
        assert words in result.stdout
    assert (tmp_path / "digits_int8.onnx").stat().st_size < (
        0.35 * (tmp_path / "sample_models" / "digits_cnn.onnx").stat().st_size
    )


def test_second_command_is_what_ci_runs() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert len(_commands()) == 2
    assert "python -m pytest" in _commands()[1]
    assert "n == 2' README.md" in script


def test_python_example_runs(tmp_path: Path, monkeypatch) -> None:
    code = re.search(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert code is not None
    shutil.copytree(REPOSITORY / "sample_models", tmp_path / "sample_models")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(compile(code[1], "README.md", "exec"), scope)
    outputs = scope["outputs"]
    assert isinstance(outputs, dict)
    assert outputs["logits"].shape == (1, 10)


def test_documented_commands_exist() -> None:
    from infer_tool.config import COMMANDS

    documented = set(re.findall(r"^infertool (\w+) ", README, re.MULTILINE))
    assert documented == set(COMMANDS)
