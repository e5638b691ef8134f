"""Paddle layers and saved models, compared with Paddle."""

from __future__ import annotations

import random
import shutil

import pytest

from infer_runtime.errors import InferError, ModelError, UnsupportedOpError, UsageError
from infer_tool.importers import ImportOptions, import_source, paddle_screen

KIND = "paddle"
CODE = """
    import paddle
    from paddle import nn
    from paddle.static import InputSpec

    class Network(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2D(3, 8, 3, padding=1)
            self.norm = nn.BatchNorm2D(8)
            self.drop = nn.Dropout(0.5)
            self.last = nn.Linear(8, 5)

        def forward(self, x):
            x = nn.functional.gelu(self.norm(self.conv(x)))
            return self.last(self.drop(x.mean([2, 3])))

    class Recurrent(nn.Layer):
        def __init__(self):
            super().__init__()
            self.rows = nn.LSTM(4, 6, direction="bidirect")
            self.last = nn.Linear(12, 3)

        def forward(self, rows, flag):
            y = self.last(self.rows(rows)[0].mean(1))
            return {"score": y + flag, "raw": y}

    class Scaled(nn.Layer):
        def forward(self, x):
            return nn.functional.interpolate(x, scale_factor=2)

    def network():
        paddle.seed(0)
        made = Network()
        made.norm._mean.set_value(paddle.arange(8, dtype="float32") / 10)
        return made

    def recurrent():
        paddle.seed(0)
        return Recurrent()

    def scaled():
        return Scaled()
"""
SAVE = (
    CODE
    + """
    made = network()
    made.eval()
    spec = InputSpec([None, 3, 8, 8], "float32", "image")
    paddle.jit.save(made, "new/net", input_spec=[spec])

    paddle.enable_static()
    with paddle.pir_utils.OldIrGuard():
        main, start = paddle.static.Program(), paddle.static.Program()
        with paddle.static.program_guard(main, start):
            x = paddle.static.data("x", [None, 4], "float32")
            y = paddle.static.nn.fc(x, 3, activation="tanh")
            run = paddle.static.Executor()
            run.run(start)
            paddle.static.save_inference_model("old/net", [x], [y], run, program=main)
"""
)


def test_layer(framework, normal) -> None:
    imported = framework.load(CODE, "network", "x:Bx3x8x8")
    for batch in (1, 3):
        assert framework.agree(imported, x=normal(batch, 3, 8, 8))["output"].shape == (batch, 5)


def test_layer_with_named_inputs_and_outputs(framework, normal) -> None:
    imported = framework.load(CODE, "recurrent", "flag:Bx3", "rows:BxTx4")
    shapes = {v.name: str(v.shape) for v in imported.model.graph.inputs}
    assert shapes == {"rows": "[B,T,4]", "flag": "[B,3]"}
    outputs = framework.agree(imported, rows=normal(2, 5, 4), flag=normal(2, 3))
    assert set(outputs) == {"score", "raw"}


@pytest.fixture(scope="module")
def mutations() -> random.Random:
    return random.Random(5)


def test_saved_models_and_their_damage(framework, normal, mutations, monkeypatch) -> None:
    """Both formats, by folder and by file; then what is wrong with them."""
    framework.run(SAVE)
    for name, key, shape in (("new", "image", (2, 3, 8, 8)), ("old", "x", (2, 4))):
        folder = framework.folder / name
        (program,) = [p for p in folder.iterdir() if p.suffix in paddle_screen.MODELS]
        for source in (folder, program):
            imported = import_source(str(source), ImportOptions())
            assert imported.kind == "paddle"
            framework.agree(imported, **{key: normal(*shape)})
        _mutate(program, mutations, monkeypatch)
        _refused(folder, UsageError, r"--input: .* states its own inputs", input=("x:2",))
        shutil.copy(program, framework.folder / program.name)
        _refused(framework.folder / program.name, ModelError, r"net\.pdiparams is missing")
        content = program.read_bytes()
        acting = {b"conv2d": b"py_func", b"tanh": b"save"}
        for op, other in acting.items():
            content = content.replace(b'"#":"1.' + op + b'"', b'"#":"1.' + other + b'"')
        content = content.replace(b"\x1a\x04tanh", b"\x1a\x04save")
        assert content != program.read_bytes()
        program.write_bytes(content)
        _refused(folder, UnsupportedOpError, r"acts on files or calls code: .*(py_func|save)")


def _refused(path, kind, text, **options) -> None:
    with pytest.raises(kind, match=text):
        import_source(str(path), ImportOptions(**options))


class _AskedError(Exception):
    pass


def _ask(*_, **__):
    raise _AskedError


def _mutate(program, dice, monkeypatch) -> None:
    """What passes the first look is not loaded: the parameters of other formats are."""
    content = program.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("infer_tool.importers.foreign.Worker", _ask)
        refused = 0
        for _ in range(500):
            data = bytearray(content)
            for _ in range(dice.choice([1, 3, 20])):
                data[dice.randrange(len(data))] = dice.randrange(256)
            program.write_bytes(data if dice.random() < 0.8 else data[: dice.randrange(len(data))])
            with pytest.raises((InferError, _AskedError)) as caught:
                import_source(str(program), ImportOptions())
            if caught.type is not _AskedError:
                refused += 1
                assert caught.value.exit_code in (2, 3)
                assert str(caught.value).startswith(f"{program}: ")
        assert refused > 100
    program.write_bytes(content)


def test_damaged_parameters(framework) -> None:
    """Paddle itself reads on where the file has ended."""
    framework.run(SAVE)
    for name in ("new", "old"):
        path = framework.folder / name / "net.pdiparams"
        content = path.read_bytes()
        for part in (content[:100], content[:-1], content + b"\0", b"\1" + content[1:]):
            path.write_bytes(part)
            _refused(path.parent, ModelError, r"net\.pdiparams is damaged; copy it again")
        path.write_bytes(content * 2)
        _refused(path.parent, ModelError, r"holds \d+ parameters, the model has \d+; copy both")


@pytest.mark.parametrize(
    ("factory", "text"),
    [("scaled", r"scaled: its framework crashed: it ended with status 255: \S")],
)
def test_refusals(framework, factory, text) -> None:
    with pytest.raises(ModelError, match=text) as caught:
        framework.load(CODE, factory, "x:1x3x4x4")
    assert "\n" not in str(caught.value)
