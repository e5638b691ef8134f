"""Files appear whole or not at all, the same bytes for the same model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from infer_runtime.errors import MismatchError, UsageError
from infer_tool.emitters.onnx import save_onnx
from infer_tool.engines import available_engines, open_engine
from infer_tool.files import atomic_path

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
    for name in available_engines():
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
