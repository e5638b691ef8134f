"""Files appear whole or not at all, the same bytes for the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from infer_runtime.errors import MismatchError, UsageError
from infer_tool.emitters.onnx import file_bytes, save_onnx
from infer_tool.engines import engines_for, open_engine
from infer_tool.files import atomic_path, check_output, sha256, written

FEED = {"x": np.ones(4, np.float32)}


@pytest.fixture
def model() -> ir.Model:
    """y = x + k with a weight of 1.6 kB, large enough to be worth a file of its own."""
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 20]>
        t (float[4] x, float[100,4] k) => (float[100,4] y) { y = Add(x, k) }"""
    )
    model.graph[0].name = "add"
    value = model.graph.inputs.pop()
    value.const_value = ir.tensor(np.tile(np.float32([1, 2, 3, 4]), (100, 1)), name="k")
    model.graph.register_initializer(value)
    return model


def test_whole_or_nothing(tmp_path) -> None:
    path = tmp_path / "f"

    def fail_halfway() -> None:
        with atomic_path(path, force=False) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert list(tmp_path.iterdir()) == []
    with atomic_path(path, force=False) as temporary:
        temporary.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    with pytest.raises(UsageError, match="--force"), atomic_path(path, force=False):
        pass


@pytest.mark.parametrize("limit", [10**9, 0], ids=["inline", "external"])
def test_save_and_run(tmp_path, model, limit) -> None:
    path = tmp_path / "m.onnx"
    save_onnx(model, path, inline_limit=limit)
    assert (tmp_path / "m.onnx.data").exists() == (limit == 0)
    for name in engines_for("onnx"):
        np.testing.assert_array_equal(open_engine(name, path).run(FEED)["y"][7], [2, 3, 4, 5])
    onnx.checker.check_model(str(path))


@pytest.mark.parametrize("limit", [10**9, 0], ids=["inline", "external"])
@pytest.mark.parametrize("error", [MismatchError("no"), KeyboardInterrupt()])
def test_failed_check_leaves_what_was_there(tmp_path, model, limit, error) -> None:
    path = tmp_path / "m.onnx"

    def fail(_) -> None:
        raise error

    with pytest.raises(type(error)):
        save_onnx(model, path, check=fail, inline_limit=limit)
    assert list(tmp_path.iterdir()) == []
    save_onnx(model, path, inline_limit=limit)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(type(error)):
        save_onnx(model, path, check=fail, inline_limit=limit, force=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_same_model_same_bytes(tmp_path, model) -> None:
    for name in ("a", "b"):
        save_onnx(model.clone(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_own_external_weights_are_not_overwritten(tmp_path, model) -> None:
    path = tmp_path / "m.onnx"
    save_onnx(model, path, inline_limit=0)
    loaded = ir.load(path)
    with pytest.raises(UsageError, match="own weights"):
        save_onnx(loaded, path, inline_limit=0, force=True)
    save_onnx(loaded, tmp_path / "inline.onnx")
    assert ort.InferenceSession(tmp_path / "inline.onnx").run(None, FEED)[0][0, 0] == 2


@pytest.mark.parametrize(
    ("limit", "files"), [(1600, ["m.onnx"]), (1599, ["m.onnx", "m.onnx.data"])]
)
def test_large_weights_get_a_file_of_their_own(tmp_path, model, limit, files) -> None:
    path = tmp_path / "m.onnx"
    save_onnx(model, path, inline_limit=limit)
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    assert file_bytes(path) == sum(p.stat().st_size for p in tmp_path.iterdir())


def test_both_files_can_be_moved_and_replaced(tmp_path, model) -> None:
    path = tmp_path / "m.onnx"
    save_onnx(model, path, inline_limit=0)
    with pytest.raises(UsageError, match="--force"):
        save_onnx(model, path, inline_limit=0)
    path.unlink()
    with pytest.raises(UsageError, match=r"m\.onnx\.data: exists already"):
        save_onnx(model, path, inline_limit=0)
    before = sha256(tmp_path / "m.onnx.data")
    save_onnx(model, path, inline_limit=0, force=True)
    assert sha256(tmp_path / "m.onnx.data") == before
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("m.onnx", "m.onnx.data"):
        (tmp_path / name).rename(moved / name)
    assert ort.InferenceSession(moved / "m.onnx").run(None, FEED)[0][0, 0] == 2


def test_the_check_sees_a_model_that_runs(tmp_path, model) -> None:
    for limit in (0, 10**9):
        path = tmp_path / f"m{limit}.onnx"
        seen = []

        def check(temporary, path=path, seen=seen) -> None:
            assert not path.exists()
            seen.append(open_engine("onnxruntime", temporary).run(FEED)["y"][0, 0])

        save_onnx(model, path, check=check, inline_limit=limit)
        assert seen == [2]


def test_the_model_is_not_changed(tmp_path, model) -> None:
    model.producer_name = "somebody"
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    for limit in (0, 10**9):
        save_onnx(model, tmp_path / f"{limit}.onnx", inline_limit=limit)
        assert onnx.load(tmp_path / f"{limit}.onnx").producer_name == "infertool"
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_full_disk_is_one_line(tmp_path, model) -> None:
    """/dev/full answers every write as a full disk does."""
    device = Path("/dev/full")
    if not device.exists():
        pytest.skip("no /dev/full here")

    def write() -> None:
        with atomic_path(tmp_path / "f", force=False) as temporary:
            temporary.symlink_to(device)
            with written(tmp_path / "f"):
                temporary.write_bytes(bytes(1 << 20))

    with pytest.raises(UsageError, match="f: cannot be written: No space left on device"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/f", "folder .*missing does not exist; create it first"),
        ("file/f", "folder .*file is not a folder"),
        ("", "is a folder; name a file in it"),
        ("file", "exists already; give another name or --force"),
    ],
)
def test_outputs_that_cannot_be(tmp_path, name, message) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=message):
        check_output(tmp_path / name, force=False)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_constants_are_described_once(tmp_path) -> None:
    """Their type and shape stand with their data; a default of an input stays described."""
    text = """<ir_version: 10, opset_import: ["": 20]>
    t (float[2] x, float[2] d) => (float[2] y) <float[2] w = {1, 2}, float[2] d = {3, 4}> { a = Mul(x, w)  y = Add(a, d) }"""
    model = ir.from_onnx_text(text)
    save_onnx(model, tmp_path / "m.onnx")
    written = onnx.load(tmp_path / "m.onnx")
    assert not {v.name for v in written.graph.value_info} & {"w", "d"}
    assert [v.name for v in written.graph.input] == ["x", "d"]
    onnx.checker.check_model(written, full_check=True)
    assert model.graph.initializers["w"].shape is not None
