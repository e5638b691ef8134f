"""What the documentation shows is run, or at least read by what it is written for."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main
import yaml

from infer_tool.cli import _app
from infer_tool.hooks.model_growth import main as model_growth

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "reference" not in p.parts)


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def shell(tmp_path, samples):
    """Run a script where `infertool` is this checkout and `sample_models` lies in the folder."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "infertool").write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m infer_tool "$@"\n'
    )
    (tools / "infertool").chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    (work / "sample_models").symlink_to(samples)
    base = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }

    def run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script], cwd=work, env=base | variables,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    run.folder = work  # type: ignore[attr-defined]
    return run


def test_the_tutorial(shell) -> None:
    scripts = _blocks(DOCS / "tutorial.md", "bash")
    assert len(scripts) >= 6
    for script in scripts:
        result = shell(script)
        assert result.returncode == 0, f"{script}{result.stderr}"
    assert (shell.folder / "int8.onnx").stat().st_size < 0.4 * (
        (shell.folder / "small.onnx").stat().st_size
    )
    assert (shell.folder / "quantised" / "report.html").exists()


def test_the_export_from_pytorch(shell) -> None:
    """What the page shows, with a module and an example of our own in front."""
    (code,) = _blocks(DOCS / "howto" / "pytorch.md", "python")
    given = "import torch\nmodule = torch.nn.Linear(4, 2)\nexample = torch.ones(1, 4)\n"
    (shell.folder / "export.py").write_text(given + code)
    command = _blocks(DOCS / "howto" / "pytorch.md", "console")[0].removeprefix("$ ")
    result = shell(f"{shlex.quote(sys.executable)} export.py && {command}")
    assert result.returncode == 0, result.stderr
    assert (shell.folder / "model.onnx").exists()


def test_the_recipe(cli, samples, tmp_path, monkeypatch) -> None:
    """The page's own file, with samples in two parts and one short epoch."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample_models").symlink_to(samples)
    with np.load(samples / "digits.npz") as arrays:
        np.savez("held-out.npz", **{k: v[600:] for k, v in arrays.items()})
    (text,) = _blocks(DOCS / "howto" / "recipe.md", "yaml")
    short = re.sub(r"epochs: \d+", "epochs: 1", text).replace("max-drop: 5%", "max-drop: 50%")
    Path("recipe.yaml").write_text(short)
    result = cli("run", "recipe.yaml")
    assert result.status == 0, result.err
    assert Path("small.onnx").stat().st_size < 100_000


EDIT = re.compile(
    r"^(?:In `([^`]+)`, under the line `([^`]+)`|At the end of `([^`]+)`):\n\n```(?:python|text)\n(.*?)^```$"
    r"|^```console\n(.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def _edit(repository: Path, match: re.Match[str]) -> None:
    name, line, whole, code = match.group(1, 2, 3, 4)
    path = repository / (name or whole)
    text = path.read_text()
    if whole:
        path.write_text(f"{text.rstrip()}\n\n\n{code}")
        return
    assert text.count(f"\n{line}\n") == 1, f"{name} has no line of its own {line!r}"
    path.write_text(text.replace(f"\n{line}\n", f"\n{line}\n{code}"))


def test_what_is_added_step_by_step(shell) -> None:
    """The page that extends the house, to the letter, in a copy of the repository."""
    page = (DOCS / "extend.md").read_text()
    names = ["infer_runtime", "passes", "quant", "infer_native", "infer_tool", "docs/examples"]
    for name in names:
        shutil.copytree(REPOSITORY / name, shell.folder / name)
    steps = list(EDIT.finditer(page))
    assert len(steps) == page.count("```") // 2, "a block that nobody follows"
    scripts = []
    for match in steps:
        if match[5] is None:
            _edit(shell.folder, match)
            continue
        script = match[5].replace("$ ", "")
        scripts.append(script)
        result = shell(script, PYTHONPATH=str(shell.folder))
        assert result.returncode == 0, f"{script}\n{result.stdout}\n{result.stderr}"
    assert len(scripts) == 8


def _commands() -> list[str]:
    lines = [
        line.removeprefix("$ ")
        for page in PAGES
        if page.name != "extend.md"  # whose commands are run
        for block in _blocks(page, "console")
        for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith("infertool ")]


@pytest.mark.parametrize("line", _commands())
def test_options_in_the_how_tos_exist(line) -> None:
    """Parsed as the command line does, without running it."""
    name, *words = shlex.split(line)[1:]
    command = typer.main.get_command(_app()).commands[name]
    command.make_context(name, words)


def test_links_between_pages() -> None:
    made = {"commands", "exit-status", "report", "sources", "passes", "operators", "number-formats"}
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            path = (page.parent / target).resolve()
            generated = path.parent.name == "reference" and path.stem in made
            assert generated or path.exists(), f"{page.name}: {target}"


def _action() -> dict:
    return yaml.safe_load((REPOSITORY / "action.yml").read_text())


def _workflow_inputs() -> dict[str, str]:
    workflow = yaml.safe_load(_blocks(DOCS / "ci.md", "yaml")[0])
    return workflow["jobs"]["int8"]["steps"][1]["with"]


def test_the_action_is_well_formed() -> None:
    action = _action()
    inputs = action["inputs"]
    assert set(_workflow_inputs()) <= set(inputs)
    used = set(re.findall(r"inputs\.([\w-]+)", (REPOSITORY / "action.yml").read_text()))
    assert used == set(inputs)
    for step in action["runs"]["steps"]:
        assert ("uses" in step) != ("run" in step)
        if "run" in step:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"], "values reach the shell as variables, not as text"
        else:
            assert re.search(r"@v\d+$", step["uses"])


@pytest.mark.parametrize(
    ("extra", "status", "words"),
    [("", 0, "passed"), ("\n--max-size\n1kB", 1, "FAILED")],
    ids=["passes", "gate fails"],
)
def test_the_steps_of_the_action(shell, extra, status, words) -> None:
    steps = {step.get("name"): step.get("run") for step in _action()["runs"]["steps"]}
    arguments = _workflow_inputs()["arguments"] + extra + "\n--runs\n0\n--scheme\nfp16"
    variables = {
        "ARGUMENTS": arguments.replace("\n\n", "\n"),
        "REPORT": "infertool-report",
        "GITHUB_STEP_SUMMARY": str(shell.folder / "summary.md"),
    }
    result = shell(steps["Run infertool"], **variables)
    assert result.returncode == status, result.stderr
    assert shell(steps["Show the report"], **variables).returncode == 0
    assert words in (shell.folder / "summary.md").read_text()
    assert (shell.folder / "int8.onnx").exists() == (status == 0)


def test_the_action_does_not_run_its_arguments(shell) -> None:
    steps = {step.get("name"): step.get("run") for step in _action()["runs"]["steps"]}
    evil = "inspect\n$(touch stolen)\n`touch stolen`; touch stolen"
    assert shell(steps["Run infertool"], ARGUMENTS=evil, REPORT="r").returncode != 0
    assert not (shell.folder / "stolen").exists()


def test_the_gitlab_job(shell) -> None:
    job = yaml.safe_load((REPOSITORY / "ci" / "gitlab.yml").read_text())[".infertool"]
    wanted = yaml.safe_load(_blocks(DOCS / "ci.md", "yaml")[1])
    assert wanted["model"]["extends"] == ".infertool"
    assert (REPOSITORY / wanted["include"][0]["local"]).is_file()
    assert set(wanted["model"]["variables"]) <= set(job["variables"])
    command = "inspect sample_models/digits_mlp.onnx --layers"
    result = shell("\n".join(job["script"]), INFERTOOL=command)
    assert result.returncode == 0, result.stderr
    assert (shell.folder / job["artifacts"]["reports"]["junit"]).is_file()
    assert shell("\n".join(job["script"]), INFERTOOL="inspect none.onnx").returncode == 2


def test_the_dockerfile() -> None:
    """Pinned, without rights, and of files that the build context has."""
    lines = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert all(
        re.match(r"python:\d+\.\d+\.\d+-slim-\w+", rest) for key, rest in steps if key == "FROM"
    )
    last = dict(steps)
    assert last["USER"] == "infertool"
    assert [key for key, _ in steps][-2:] == ["ENTRYPOINT", "CMD"]
    allowed = {
        line[1:]
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line[:1] == "!"
    }
    copied = {
        word
        for key, rest in steps
        if key == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    }
    assert copied == allowed
    assert all((REPOSITORY / name).exists() for name in copied)
    packages = {p.parent.name for p in REPOSITORY.glob("*/py.typed")}
    assert packages <= copied


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A git repository with a committed model of 1,000 bytes."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "m.onnx").write_bytes(b"x" * 1000)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "model"]):
        subprocess.run(["git", *words], check=True)
    return folder


@pytest.mark.parametrize(
    ("size", "options", "status"),
    [
        (1000, [], 0),
        (900, [], 0),
        (1001, [], 1),
        (1020, ["--allow", "2%"], 0),
        (1021, ["--allow", "2%"], 1),
    ],
)
def test_the_hook_refuses_growth(repository, capsys, size, options, status) -> None:
    (repository / "m.onnx").write_bytes(b"y" * size)
    assert model_growth([*options, "m.onnx"]) == status
    assert ("m.onnx: grew from 1.00 kB" in capsys.readouterr().out) == bool(status)


def test_the_hook_and_new_files(repository, tmp_path, monkeypatch) -> None:
    (repository / "n.onnx").write_bytes(b"z" * 5000)
    assert model_growth(["n.onnx", "m.onnx"]) == 0
    assert model_growth(["--max-new", "4kB", "n.onnx"]) == 1
    assert model_growth(["--allow", "much", "n.onnx"]) == 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside.onnx").touch()
    assert model_growth(["outside.onnx"]) == 2


def test_the_hook_that_is_documented_exists() -> None:
    (hook,) = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text())
    documented = yaml.safe_load(_blocks(DOCS / "ci.md", "yaml")[2])["repos"][0]["hooks"][0]
    assert documented["id"] == hook["id"]
    assert f"{hook['entry']} = " in (REPOSITORY / "pyproject.toml").read_text()
    assert all(re.search(hook["files"], name) for name in ("a/b.onnx", "m.tflite", "m.pt2"))
