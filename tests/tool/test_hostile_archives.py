"""Archives and weight files that are damaged or built to harm: refused by name, never a crash.

What can be seen without torch is checked here in hundreds of variants; those that pass are then
read by torch in one child process, which stands for the worker of each.
"""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infer_runtime.errors import InferError, ModelError
from infer_tool.importers import ImportOptions, import_source
from infer_tool.importers.detect import detect
from infer_tool.importers.huggingface import check_folder
from infer_tool.importers.torch_archive import check_archive, check_zip
from infer_tool.importers.torchscript import check_torchscript

torch = pytest.importorskip("torch")

COUNT = 520
# Reads every file that stdin names, and says what came of it.
READER = """
import sys
from infer_runtime.errors import ModelError
from infer_tool.importers import {module} as opener
for line in sys.stdin:
    try:
        opener.{function}({argument})
        print("read", flush=True)
    except ModelError as error:
        print(repr(str(error)), flush=True)
"""


def _mutated(whole: bytes, generator: random.Random, number: int) -> bytes:
    content = bytearray(whole)
    # Half of the damage where the structure is: at the two ends.
    near = generator.choice([len(content), 400])
    at = generator.choice([generator.randrange(near), len(content) - 1 - generator.randrange(near)])
    if number % 4 == 0:
        del content[at:]
    elif number % 4 == 1:
        content[at] ^= 1 << generator.randrange(8)
    elif number % 4 == 2:
        del content[at : at + generator.randint(1, 64)]
    else:
        for _ in range(4):
            content[generator.randrange(len(content))] = generator.randrange(256)
    return bytes(content)


def _screened(folder: Path, whole: bytes, check) -> list[Path]:
    """Variants that nothing is visibly wrong with; every other one has its one line."""
    generator, passed = random.Random(4), []
    for number in range(COUNT):
        path = folder / f"v{number}.bin"
        path.write_bytes(_mutated(whole, generator, number))
        try:
            detect(str(path))
            check(path)
            passed.append(path)
        except InferError as error:
            text = str(error)
            assert path.name in text
            assert len(text.splitlines()) == 1
            path.unlink()
    return passed


def _read_all(
    paths: list[Path], module: str, function: str, argument: str = "line.strip()"
) -> list[str]:
    """One child; where a file ends it, which a worker would report, another one goes on."""
    code, answers, crashes = (
        READER.format(module=module, function=function, argument=argument),
        [],
        0,
    )
    while len(answers) < len(paths):
        rest = "\n".join(map(str, paths[len(answers) :]))
        result = subprocess.run(
            [sys.executable, "-c", code], input=rest, capture_output=True, text=True, check=False
        )
        answers += result.stdout.splitlines()
        if result.returncode:
            answers.append("crash")
            crashes += 1
        assert crashes < 10, result.stderr[-2000:]
    return answers


def _net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.PReLU(4))


def test_mutated_programs(tmp_path) -> None:
    torch.export.save(torch.export.export(_net(), (torch.ones(2, 3),)), tmp_path / "n.pt2")
    whole = (tmp_path / "n.pt2").read_bytes()
    passed = _screened(tmp_path, whole, check_archive)
    answers = _read_all(passed, "torch_export_child", "read_program")
    assert len(answers) == len(passed) < COUNT - 200
    assert all(a in ("read", "crash") or "torch cannot read it" in a for a in answers)


def test_mutated_torchscript(tmp_path) -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        torch.jit.script(_net()).save(str(tmp_path / "n.pt"))
    whole = (tmp_path / "n.pt").read_bytes()
    passed = _screened(tmp_path, whole, check_torchscript)
    answers = _read_all(passed, "torchscript_child", "read_script")
    assert len(answers) == len(passed) < COUNT - 200
    assert all(a in ("read", "crash") or "torch cannot read it" in a for a in answers)


def _safetensors(count: int = 20) -> bytes:
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for number in range(count):
        header[f"layer.{number}.weight"] = {
            "dtype": "F32", "shape": [2, number + 1], "data_offsets": [at, at + 8 * (number + 1)]
        }  # fmt: skip
        at += 8 * (number + 1)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(at)


CONFIG = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8}


def _folder(path: Path, config: object = CONFIG, **files: bytes) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (path / name.replace("__", ".")).write_bytes(content)
    return path


def test_mutated_weights_and_configurations(tmp_path) -> None:
    """Of a Hugging Face folder; what passes differs in the data, which nothing can see."""
    whole, config = _safetensors(), json.dumps(CONFIG).encode()
    folder = _folder(tmp_path / "hf", model__safetensors=whole)
    assert check_folder(folder)[0] == CONFIG
    generator, passed, refusals = random.Random(5), 0, []
    for number in range(COUNT):
        (folder / "model.safetensors").write_bytes(_mutated(whole, generator, number))
        (folder / "config.json").write_bytes(
            config if number % 2 else _mutated(config + bytes(400), generator, 1)
        )
        try:
            check_folder(folder)
            passed += 1
        except ModelError as error:
            refusals.append(str(error))
    assert all(len(r.splitlines()) == 1 and str(folder) in r for r in refusals)
    assert 5 < passed < COUNT - 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "F31"}, "type 'F31', which is not supported"),
        ({"shape": [2, -1]}, "'a' is damaged"),
        ({"shape": [1 << 61, 1 << 61]}, "not the bytes of its shape"),
        ({"shape": "2"}, "'a' is damaged"),
        ({"data_offsets": [8, 0]}, "not the bytes of its shape"),
        ({"data_offsets": [8, 16]}, "lies at a wrong place"),
        ({"data_offsets": [0, True]}, "'a' is damaged"),
    ],
)
def test_wrong_entries_of_safetensors(tmp_path, change, message) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | change
    text = json.dumps({"a": entry}).encode()
    content = len(text).to_bytes(8, "little") + text + bytes(8)
    with pytest.raises(ModelError, match=rf"model\.safetensors: .*{message}"):
        check_folder(_folder(tmp_path / "hf", model__safetensors=content))


def test_folders_that_are_refused(tmp_path) -> None:
    weights = _safetensors()
    index = {"weight_map": {"a": "../secret.safetensors"}}
    cases = {
        "no model_type": _folder(tmp_path / "a", {}, model__safetensors=weights),
        "quantised for other kernels": _folder(
            tmp_path / "b", CONFIG | {"quantization_config": {}}, model__safetensors=weights
        ),
        r"pytorch_model\.bin is a pickle.*save_pretrained": _folder(
            tmp_path / "c", pytorch_model__bin=pickle.dumps({})
        ),
        "no safetensors; expected": _folder(tmp_path / "d"),
        "is no JSON object": _folder(tmp_path / "e", [1], model__safetensors=weights),
        r"secret\.safetensors', which is no file beside it": _folder(
            tmp_path / "f", model__safetensors__index__json=json.dumps(index).encode()
        ),
    }  # fmt: skip
    (tmp_path / "secret.safetensors").write_bytes(weights)
    for message, folder in cases.items():
        with pytest.raises(ModelError, match=message):
            import_source(str(folder), ImportOptions())


def test_a_link_out_of_the_folder_must_be_allowed(tmp_path) -> None:
    (tmp_path / "blob").write_bytes(_safetensors())
    folder = _folder(tmp_path / "hf")
    (folder / "model.safetensors").symlink_to("../blob")
    with pytest.raises(ModelError, match=r"is a link to .*blob, outside .*--follow-links"):
        check_folder(folder)
    assert check_folder(folder, follow_links=True)[1] == [folder / "model.safetensors"]


def _zip(
    path: Path, members: dict[str, bytes], *, packed: bool = False, comment: bytes = b""
) -> Path:
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = comment
    return path


PLAIN = {"n/code/a.py": b"", "n/data.pkl": b"", "n/version": b"3"}


@pytest.mark.parametrize("name", ["n/../../evil.py", "/etc/evil", "n\\..\\evil", "c:/evil"])
def test_names_that_lead_out_of_an_archive(tmp_path, name) -> None:
    path = _zip(tmp_path / "n.pt", PLAIN | {name: b"x"})
    with pytest.raises(ModelError, match=r"n\.pt: the name .* leads out of the archive"):
        import_source(str(path), ImportOptions(input=("x:1",)))


@pytest.mark.parametrize(
    ("packed", "message"),
    [(True, r"n\.pt: unpacks to \d{10} bytes"), (False, "larger than the archive")],
)
def test_bombs(tmp_path, packed, message) -> None:
    """The directory says 1 GiB of one member; stored ones would overlap others."""
    path = _zip(tmp_path / "n.pt", PLAIN | {"n/code/b.py": bytes(5000)}, packed=packed)
    whole = bytearray(path.read_bytes())
    entry = whole.rindex(b"n/code/b.py") - 46  # its line in the directory
    whole[entry + 24 : entry + 28] = (1 << 30).to_bytes(4, "little")
    if not packed:
        whole[entry + 20 : entry + 24] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(whole)
    with pytest.raises(ModelError, match=message):
        import_source(str(path), ImportOptions(input=("x:1",)))


def test_a_comment_that_another_reader_might_take_for_the_directory(tmp_path) -> None:
    path = _zip(tmp_path / "n.pt", PLAIN, comment=b"PK\x05\x06 and more")
    with pytest.raises(ModelError, match=r"n\.pt: "):
        check_zip(path)


def test_payloads_in_torchscript_do_not_run(tmp_path) -> None:
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        torch.jit.script(_net()).save(str(tmp_path / "n.pt"))
    evil = tmp_path / "evil.pt"
    with zipfile.ZipFile(tmp_path / "n.pt") as old, zipfile.ZipFile(evil, "w") as new:
        for item in old.infolist():
            pickled = item.filename.endswith(("data.pkl", "constants.pkl"))
            new.writestr(item, pickle.dumps(Payload(), 2) if pickled else old.read(item))
    with pytest.raises(ModelError, match=r"evil\.pt: torch cannot read it"):
        import_source(str(evil), ImportOptions(input=("x:2x3",)))
    assert not (tmp_path / "ran").exists()
