"""A .pt2 is data: what a crafted one would run does not run."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

from infer_runtime.errors import ModelError
from infer_tool.importers import ImportOptions, import_source

GRAPH = "models/model.json"


class Scale(torch.nn.Module):
    """A weight and a dynamic dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * self.w)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "scale.pt2"
    batch = torch.export.Dim("batch")
    torch.export.save(
        torch.export.export(Scale(), (torch.ones(2, 3),), dynamic_shapes=({0: batch},)), path
    )
    return path


def _rewritten(source: Path, target: Path, change) -> Path:
    """The archive with its graph changed by `change(document)`, and members that it returns."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        prefix = old.namelist()[0].partition("/")[0]
        document = json.loads(old.read(f"{prefix}/{GRAPH}"))
        members = change(document) or {}
        for item in old.infolist():
            is_graph = item.filename == f"{prefix}/{GRAPH}"
            new.writestr(item, json.dumps(document) if is_graph else old.read(item))
        for name, content in members.items():
            new.writestr(f"{prefix}/{name}", content)
    return target


def _expression(document: dict, marker: Path) -> None:
    code = f"__import__('pathlib').Path({str(marker)!r}).touch() or Integer(3)"
    for tensor in document["graph_module"]["graph"]["tensor_values"].values():
        for size in tensor["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = code


def _operator(document: dict, marker: Path) -> None:
    node = document["graph_module"]["graph"]["nodes"][0]
    node["target"] = "torch.os.mkdir"
    node["inputs"] = [{"name": "path", "arg": {"as_string": str(marker)}, "kind": 1}]


def _file(document: dict, marker: Path) -> None:
    """An operator of torch's own that creates the file it is to read."""
    node = document["graph_module"]["graph"]["nodes"][0]
    node["target"] = "torch.ops.aten.from_file.default"
    node["inputs"] = [
        {"name": "filename", "arg": {"as_string": str(marker)}, "kind": 1},
        {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
        {"name": "size", "arg": {"as_int": 4}, "kind": 1},
    ]


def _guard(document: dict, marker: Path) -> None:
    document["guards_code"] = [f"__import__('pathlib').Path({str(marker)!r}).touch() is None"]


def _name(document: dict, marker: Path) -> None:
    text = json.dumps(document).replace('"x"', json.dumps(f"x=open({str(marker)!r},'w')"))
    document.update(json.loads(text))


def _keyword(document: dict, marker: Path) -> None:
    node = document["graph_module"]["graph"]["nodes"][0]
    node["inputs"][0] = node["inputs"][0] | {"name": f"a=open({str(marker)!r},'w')", "kind": 2}


def _import(document: dict, _: Path) -> None:
    spec = document["graph_module"]["module_call_graph"][0]["signature"]
    context = {"default_factory_module": "antigravity", "default_factory_name": "fly",
               "dict_context": ["a"]}  # fmt: skip
    spec["out_spec"] = json.dumps(
        [1, {"type": "collections.defaultdict", "context": json.dumps(context),
             "children_spec": [{"type": None, "context": None, "children_spec": []}]}]
    )  # fmt: skip


def _library(_: dict, __: Path) -> dict:
    return {"data/aotinductor/model/x.wrapper.so": b"\x7fELF"}


CHANGES = [_expression, _operator, _file, _name, _keyword, _import, _library]


def test_the_plain_archive_is_read(program, tmp_path) -> None:
    """The rewriting alone changes nothing."""
    path = _rewritten(program, tmp_path / "same.pt2", lambda _: None)
    model = import_source(str(path), ImportOptions()).model
    assert [v.name for v in model.graph.inputs] == ["x"]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_code_in_the_graph_is_refused(program, tmp_path, change) -> None:
    marker = tmp_path / "ran"
    path = _rewritten(program, tmp_path / "evil.pt2", lambda d: change(d, marker))
    with pytest.raises(ModelError, match=r"evil\.pt2: "):
        import_source(str(path), ImportOptions())
    assert not marker.exists()


def test_code_in_a_guard_does_not_run(program, tmp_path) -> None:
    """Guards are left out, not refused: every archive with fixed sizes has some."""
    marker = tmp_path / "ran"
    path = _rewritten(program, tmp_path / "evil.pt2", lambda d: _guard(d, marker))
    imported = import_source(str(path), ImportOptions())
    feeds = {"x": torch.ones(2, 3).numpy()}
    assert imported.reference(feeds)[imported.model.graph.outputs[0].name].shape == (2, 3)
    assert not marker.exists()


def test_two_members_of_one_name_are_refused(program, tmp_path) -> None:
    path = tmp_path / "twice.pt2"
    path.write_bytes(program.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"")
    with pytest.raises(ModelError, match="have one name"):
        import_source(str(path), ImportOptions())
