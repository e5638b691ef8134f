"""Files made to hurt: refused by name, in one line, before anything runs or is allocated."""

from __future__ import annotations

import os
import pickle
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

HUGE = 1 << 38  # elements; 1 TiB of float32


def _model(nodes, initializers=(), functions=()) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("d", 1)]
    made = helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)
    return made.SerializeToString()


def _constant(*dims: int, raw: bytes = b"", **external: str) -> bytes:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    if raw:
        tensor.raw_data = raw
    for key, value in external.items():
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key=key, value=value)
    return _model([helper.make_node("Add", ["x", "w"], ["y"], name="add")], [tensor])


def _functions(count: int, calls: int) -> bytes:
    """Each function calls the next one; the last negates."""
    made = []
    for n in range(count):
        target, domain = (f"f{n + 1}", "d") if n + 1 < count else ("Neg", "")
        names = ["a", *(f"t{i}" for i in range(calls - 1)), "b"]
        nodes = [
            helper.make_node(target, [before], [after], domain=domain)
            for before, after in pairwise(names)
        ]
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("d", 1)]
        made.append(helper.make_function("d", f"f{n}", ["a"], ["b"], nodes, opsets))
    return _model([helper.make_node("f0", ["x"], ["y"], domain="d")], functions=made)


def _nested_text(depth: int) -> bytes:
    head = "".join(
        f"y{n} = If(c) <else_branch = e{n} () => (float[4] z{n}) {{ z{n} = Neg(x) }}, "
        f"then_branch = t{n} () => (float[4] y{n + 1}) {{ "
        for n in range(depth)
    )
    return (
        '<ir_version: 10, opset_import: ["": 20]> g (float[4] x, bool c) => (float[4] y) {'
        f"{head}y{depth} = Neg(x){' } >' * depth} y = Neg(y0) }}"
    ).encode()


def _nested_wire(depth: int) -> bytes:
    """If nodes inside If nodes, as bytes that the library itself would not write."""
    body = b""
    for _ in range(depth):
        branch = _field(1, b"then_branch") + _field(6, body) + b"\xa0\x01\x05"
        body = _field(1, _field(4, b"If") + _field(5, branch))
    return b"\x08\x0a" + _field(7, body) + _field(8, b"\x10\x14")


def _field(number: int, payload: bytes) -> bytes:
    length, rest = b"", len(payload)
    while rest > 127:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + payload


FILES = {
    "up.onnx": (lambda: _constant(4, location="../../etc/passwd"), "outside the model"),
    "absolute.onnx": (lambda: _constant(4, location="/etc/passwd"), "outside the model"),
    "link.onnx": (lambda: _constant(4, location="link.bin"), "outside the model"),
    "folder.onnx": (lambda: _constant(4, location="."), "is missing"),
    "short.onnx": (lambda: _constant(HUGE, location="w.bin"), "ends before constant 'w'"),
    "offset.onnx": (lambda: _constant(4, location="w.bin", offset="-4"), "damaged"),
    "raw.onnx": (lambda: _constant(HUGE, raw=b"0000"), "has 4 bytes"),
    "nothing.onnx": (lambda: _constant(HUGE), "'w' has no data"),
    "overflow.onnx": (lambda: _constant(1 << 62, 1 << 62), "'w' has no data"),
    "laughs.onnx": (lambda: _functions(60, 2), "unfold to"),
    "chain.onnx": (lambda: _functions(3000, 1), "100 deep"),
    "wire.onnx": (lambda: _nested_wire(3000), "not an ONNX model"),
    "text.onnx": (lambda: _nested_text(50), "ONNX text"),
    "deep.onnx": (lambda: _nested_text(50_000), "nested brackets"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """All of them, and what they point to."""
    made = tmp_path_factory.mktemp("hostile")
    (made / "w.bin").write_bytes(bytes(16))
    (made / "link.bin").symlink_to("/etc/passwd")
    for name, (content, _) in FILES.items():
        (made / name).write_bytes(content())
    return made


@pytest.mark.parametrize("name", list(FILES))
def test_refused_by_name(cli, folder, tmp_path, name) -> None:
    path, output = folder / name, tmp_path / "o.onnx"
    before = sorted(folder.iterdir())
    for words in (["inspect", path], ["convert", path, "-o", output], ["verify", path, path]):
        outcome = cli(*words)
        assert outcome.status == 3, outcome.err
        (line,) = outcome.err.splitlines()
        assert name in line
        assert FILES[name][1] in line, line
    assert not output.exists()
    assert sorted(folder.iterdir()) == before


def test_functions_that_are_only_deep_are_read(cli, folder) -> None:
    (folder / "some.onnx").write_bytes(_functions(40, 1))
    assert cli("inspect", folder / "some.onnx").status == 0


def test_a_function_that_calls_itself(cli, tmp_path) -> None:
    model = onnx.ModelProto.FromString(_functions(3, 1))
    model.functions[2].node[0].op_type, model.functions[2].node[0].domain = "f0", "d"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    outcome = cli("inspect", tmp_path / "m.onnx")
    assert outcome.status == 3
    assert "calls itself" in outcome.err


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["m.pt2", "m.pt", "m.onnx", "m.h5", "m.keras", "m.tflite", "m.pb"])
def test_no_payload_runs(cli, tmp_path, name) -> None:
    ran = tmp_path / "ran"
    (tmp_path / name).write_bytes(pickle.dumps(_Payload(ran)))
    outcome = cli("convert", tmp_path / name, "-o", tmp_path / "o.onnx")
    assert outcome.status == 3, outcome.err
    assert name in outcome.err
    assert not ran.exists()


def test_no_payload_runs_from_data(cli, tiny, tmp_path) -> None:
    ran, data = tmp_path / "ran", tmp_path / "d.npz"
    np.savez(data, x=np.array([_Payload(ran)], dtype=object))
    outcome = cli("quantize", tiny, "--data", data, "-o", tmp_path / "o.onnx")
    assert outcome.status == 2, outcome.err
    assert "d.npz" in outcome.err
    assert not ran.exists()


def test_an_archive_that_unpacks_to_much_more(cli, tmp_path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/archive_format", "pt2")
        with archive.open("archive/models/model.json", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
    assert path.stat().st_size < 5 << 20
    outcome = cli("convert", path, "-o", tmp_path / "o.onnx")
    assert outcome.status == 3
    assert "bomb.pt2: unpacks to" in outcome.err


def test_names_with_the_markup_of_the_terminal(cli, tmp_path) -> None:
    """Tables and progress show names as they are."""
    folder = tmp_path / "["
    folder.mkdir()
    path = folder / "b]m.onnx"
    nodes = [
        helper.make_node("Neg", ["x"], ["[/h]"], name="[/neg] [red]"),
        helper.make_node("Neg", ["[/h]"], ["y"], name="[/again]"),
    ]
    path.write_bytes(_model(nodes))
    words = ["--explain", "--report", tmp_path / "r"]
    assert cli("optimize", path, "-o", folder / "o].onnx", *words).status == 0
    outcome = cli("bench", path, "--profile", "--runs", "2", "--engine", "reference")
    assert outcome.status == 0, outcome.err
    assert "[/neg] [red]" in outcome.out


def test_a_tolerance_that_is_no_number(cli, samples) -> None:
    model = samples / "digits_mlp.onnx"
    outcome = cli("verify", model, model, "--tolerance", "nan")
    assert outcome.status == 2
    assert "--tolerance nan" in outcome.err
    assert cli("inspect", "").status == 2
