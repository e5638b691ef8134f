"""MindSpore cells, compared with MindSpore."""

from __future__ import annotations

import pytest

from infer_runtime.errors import ModelError, UsageError
from infer_tool.importers import ImportOptions, import_source

KIND = "mindspore"
CODE = """
    import mindspore
    from mindspore import nn, ops

    class Network(nn.Cell):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, pad_mode="same", has_bias=True)
            self.norm = nn.BatchNorm2d(8)
            self.relu = nn.ReLU()
            self.last = nn.Dense(8, 5)

        def construct(self, x):
            x = self.relu(self.norm(self.conv(x)))
            return self.last(ops.mean(x, (2, 3)))

    class Attention(nn.Cell):
        def __init__(self):
            super().__init__()
            self.query, self.key = nn.Dense(8, 8), nn.Dense(8, 8)
            self.softmax = nn.Softmax(-1)

        def construct(self, x, bias):
            a = ops.matmul(self.query(x), self.key(x).swapaxes(1, 2))
            a = self.softmax(a * 0.35 + bias)
            return ops.matmul(a, x), a

    class Gelu(nn.Cell):
        def __init__(self):
            super().__init__()
            self.gelu = nn.GELU(approximate=False)

        def construct(self, x):
            return self.gelu(x)

    def network():
        mindspore.set_seed(0)
        return Network()

    def attention():
        mindspore.set_seed(0)
        return Attention()

    def gelu():
        return Gelu()
"""
SAVE = (
    CODE
    + """
    import numpy
    image = mindspore.Tensor(numpy.zeros((1, 3, 8, 8), numpy.float32))
    mindspore.export(network(), image, file_name="net", file_format="MINDIR")
"""
)


def test_cell(framework, normal) -> None:
    imported = framework.load(CODE, "network", "x:2x3x8x8")
    assert framework.agree(imported, x=normal(2, 3, 8, 8))["output"].shape == (2, 5)


def test_cell_with_several_inputs_and_outputs(framework, normal) -> None:
    imported = framework.load(CODE, "attention", "bias:6", "x:2x6x8")
    outputs = framework.agree(imported, x=normal(2, 6, 8), bias=normal(6))
    assert [outputs[f"output_{i}"].shape for i in (0, 1)] == [(2, 6, 8), (2, 6, 6)]


@pytest.mark.parametrize(
    ("factory", "given", "kind", "text"),
    [
        ("gelu", "x:2x3", ModelError, r"gelu: cannot be opened .*Erf operator is not yet"),
        ("network", "x:Bx3x8x8", UsageError, r"--input x: MindSpore exports fixed sizes only"),
    ],
)
def test_refusals(framework, factory, given, kind, text) -> None:
    with pytest.raises(kind, match=text) as caught:
        framework.load(CODE, factory, given)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_mindir_is_refused_by_name(framework) -> None:
    framework.run(SAVE)
    with pytest.raises(ModelError, match=r"net\.mindir: is a MINDIR file, which MindSpore cannot"):
        import_source(str(framework.folder / "net.mindir"), ImportOptions())
