"""The pipeline: fix-point, proof, undo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer_runtime import Session
from infer_runtime.errors import ModelError, UsageError
from passes.base import Outcome, Pass
from passes.config import OptimizeConfig
from passes.default import PASSES
from passes.facts import facts, macs_by_node
from passes.pipeline import optimize
from passes.verify import verify

TEXT = """t (float[N,4] x, float[4,4] w, float[4] k) => (float[N,4] y)
{ a = Identity(x)  b = Gemm(a, w)  c = Add(b, k)  d = Relu(c)  y = Identity(d) }"""


def _model(make) -> ir.Model:
    generator = np.random.default_rng(0)
    return make(
        TEXT,
        w=generator.normal(size=(4, 4)).astype(np.float32),
        k=generator.normal(size=4).astype(np.float32),
    )


def test_everything_folds(make) -> None:
    model = _model(make)
    result = optimize(model)
    assert [n.op_type for n in result.model.graph] == ["Gemm", "Relu"]
    assert len(list(model.graph)) == 5, "the source is not changed"
    assert {r.name for r in result.records} == {p.name for p in PASSES}
    assert all(r.max_abs_error < 1e-5 for r in result.records)


def test_chosen_passes(make) -> None:
    only = optimize(_model(make), OptimizeConfig(passes="eliminate-identity")).model
    assert [n.op_type for n in only.graph] == ["Gemm", "Add", "Relu"]
    without = optimize(_model(make), OptimizeConfig(passes="-fold-affine")).model
    assert "Add" in [n.op_type for n in without.graph]
    with pytest.raises(UsageError, match="no pass 'fold-everything'"):
        optimize(_model(make), OptimizeConfig(passes="fold-everything"))


@dataclass(frozen=True)
class _DoublesABias(Pass):
    """A pass that is wrong in value."""

    name: ClassVar[str] = "doubles-a-bias"

    def apply(self, model: ir.Model) -> Outcome:
        """Double the first vector."""
        value = model.graph.initializers["k"]
        value.const_value = ir.tensor(value.const_value.numpy() * 2, name="k")
        return Outcome(1)


@dataclass(frozen=True)
class _LeavesGarbage(Pass):
    """A pass that is wrong in structure."""

    name: ClassVar[str] = "leaves-garbage"

    def apply(self, model: ir.Model) -> Outcome:
        """Remove a node that others need."""
        model.graph.remove(model.graph[1])
        return Outcome(1)


@dataclass(frozen=True)
class _Assumes(Pass):
    """A pass that takes something for granted."""

    name: ClassVar[str] = "assumes"

    def apply(self, model: ir.Model) -> Outcome:
        """Look for what is not there."""
        return Outcome(len(model.graph.initializers["nothing"].uses()))


@pytest.mark.parametrize("bad", [_DoublesABias(), _LeavesGarbage(), _Assumes()])
def test_a_wrong_pass_is_undone(make, bad) -> None:
    model = _model(make)
    result = optimize(model, passes=[bad, *PASSES])
    assert [n.op_type for n in result.model.graph] == ["Gemm", "Relu"]
    record = next(r for r in result.records if r.name == bad.name)
    assert record.changes == 0
    assert "undone" in record.refusals[0].reason
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(
        Session(result.model).run({"x": x})["y"], Session(model).run({"x": x})["y"], rtol=1e-6
    )


OPS = ["Relu(v)", "Neg(v)", "Identity(v)", "Add(v, k)", "Mul(v, k)", "Sub(v, k)", "MatMul(v, w)",
       "Gemm(v, w)", "Gemm(v, w, k)", "Transpose<perm=[0,1]>(v)", "Add(v, u)", "Clip(v)",
       "Cast<to=1>(v)", "Dropout(v)", "Sigmoid(v)"]  # fmt: skip


@settings(max_examples=120)
@given(st.lists(st.sampled_from(OPS), min_size=1, max_size=12), st.data())
def test_random_graphs_keep_their_outputs(make, ort_outputs, ops, data) -> None:
    names, lines = ["x"], []
    for number, op in enumerate(ops):
        v = data.draw(st.sampled_from(names))
        u = data.draw(st.sampled_from(names))
        lines.append(f"t{number} = {op.replace('v', v, 1) if op[0] != 'D' else f'Dropout({v})'}")
        lines[-1] = lines[-1].replace("(v", f"({v}").replace(", u)", f", {u})")
        names.append(f"t{number}")
    text = f"""t (float[3,4] x, float[4,4] w, float[4] k) => (float[3,4] y)
    {{ {" ".join(lines)}  y = Add({names[-1]}, {data.draw(st.sampled_from(names))}) }}"""
    generator = np.random.default_rng(5)
    model = make(
        text,
        w=(generator.normal(size=(4, 4)) * 0.5).astype(np.float32),
        k=generator.normal(size=4).astype(np.float32),
    )
    result = optimize(model).model
    verify(result)
    assert facts(result).nodes <= facts(model).nodes
    x = generator.normal(size=(3, 4)).astype(np.float32)
    wanted = ort_outputs(model, {"x": x})["y"]
    atol = 1e-5 * max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(ort_outputs(result, {"x": x})["y"], wanted, rtol=0, atol=atol)


LAYERS = [
    "Conv<pads=[1,1,1,1]>({v}, w)", "Conv<pads=[1,1,1,1]>({v}, w, k)", "Conv<group=4>({v}, d)",
    "ConvTranspose({v}, u)", "BatchNormalization({v}, k, m, m, p)", "Relu({v})", "Identity({v})",
    "Add({v}, c)", "Sub({v}, c)", "Mul({v}, c)", "Div({v}, c)", "Add({v}, r)", "Mul({v}, s)",
    "Add({v}, {u})", "Sub(c, {v})", "Dropout({v})",
]  # fmt: skip
PADDED = "q{n} = Pad({v}, z, s0)  t{n} = Conv(q{n}, w)"


@settings(max_examples=120, deadline=None)
@given(st.lists(st.sampled_from([*LAYERS, PADDED]), min_size=1, max_size=10), st.data())
def test_random_networks_keep_their_outputs(make, ort_outputs, layers, data) -> None:
    """Convolutions and their neighbours, with weights, statistics and values that are shared."""
    names, lines = ["x"], []
    for n, layer in enumerate(layers):
        v = data.draw(st.sampled_from(names[-3:]))
        u = data.draw(st.sampled_from(names))
        line = layer.format(v=v, u=u, n=n)
        lines.append(line if layer == PADDED else f"t{n} = {line}")
        names.append(f"t{n}")
    extra = data.draw(st.sampled_from(names))
    text = f"""t (float[1,4,5,5] x, float[4,4,3,3] w, float[4,1,1,1] d, float[4,4,1,1] u, float[4] k,
    float[4] m, float[4] p, float[4,1,1] c, float[1,1,5,5] r, float[1] s, float s0, int64[8] z) =>
    (float[1,4,5,5] y, float[1,4,5,5] o)
    {{ {"  ".join(lines)}  o = Relu({extra})  y = Add({names[-1]}, {extra}) }}"""
    generator = np.random.default_rng(7)

    def draw(*shape: int) -> np.ndarray:
        return (generator.normal(size=shape) * 0.3 + 0.1).astype(np.float32)

    model = make(
        text, w=draw(4, 4, 3, 3), d=draw(4, 1, 1, 1), u=draw(4, 4, 1, 1), k=draw(4) + 1, m=draw(4),
        p=np.abs(draw(4)) + 1, c=np.abs(draw(4, 1, 1)) + 1, r=draw(1, 1, 5, 5), s=draw(1),
        s0=np.float32(0), z=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    )  # fmt: skip
    optimized = optimize(model)
    result = optimized.model
    assert not [r for p in optimized.records for r in p.refusals if "undone" in r.reason]
    assert facts(result).nodes <= facts(model).nodes
    feeds = {"x": generator.normal(size=(1, 4, 5, 5)).astype(np.float32) + np.float32(0.25)}
    wanted, got = ort_outputs(model, feeds), ort_outputs(result, feeds)
    for name, value in wanted.items():
        atol = 1e-5 * max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(got[name], value, rtol=0, atol=atol)


def test_an_undone_pass_leaves_the_work_of_the_others(make) -> None:
    """The bad pass stands between good ones: what was done before it must survive."""
    bad = _DoublesABias()
    middle = len(PASSES) // 2
    order = [*PASSES[:middle], bad, *PASSES[middle:]]
    only = OptimizeConfig(passes="-fold-affine")
    result = optimize(_model(make), only, passes=order)
    assert [n.op_type for n in result.model.graph] == ["Gemm", "Add", "Relu"]
    k = result.model.graph.initializers["k"].const_value.numpy()
    np.testing.assert_array_equal(k, _model(make).graph.initializers["k"].const_value.numpy())


def test_verify_finds_what_is_broken(make) -> None:
    model = _model(make)
    model.graph[0].outputs[0].name = "x"
    with pytest.raises(ModelError, match="two values are named 'x'"):
        verify(model)
    model = _model(make)
    model.graph[1].op_type = "Gemmm"
    with pytest.raises(ModelError, match="Gemmm"):
        verify(model)
    model = _model(make)
    node = model.graph[1]
    model.graph.remove(node)
    with pytest.raises(ModelError, match="uses 'b'"):
        verify(model)


def test_macs_by_hand(make) -> None:
    text = """t (float[1,4,8,8] x, float[6,2,3,3] w, float[6,10] m) => (float[] y)
    { c = Conv<group=2, pads=[1,1,1,1], strides=[2,2]>(x, w)  p = GlobalAveragePool(c)
      f = Flatten(p)  y = MatMul(f, m) }"""
    model = make(text, w=np.ones((6, 2, 3, 3), np.float32), m=np.ones((6, 10), np.float32))
    assert macs_by_node(model) == {"n0": 6 * 4 * 4 * 2 * 9, "n3": 60}
    assert facts(model).parameters == 6 * 2 * 9 + 60


def test_macs_of_a_recurrent_node_with_computed_weights(make) -> None:
    text = """t (float[7,N,5] x, float[1,18,5] w, float[1,18,6] r) => (float[] y)
    { v = Neg(w)  y = GRU<hidden_size=6>(x, v, r) }"""
    assert macs_by_node(make(text)) == {"n1": 7 * 3 * 6 * (5 + 6)}


def test_torch_network_folds_completely() -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 4),
    )  # fmt: skip
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    net.eval()
    example = torch.randn(2, 3, 10, 10)
    exported = torch.onnx.export(
        net, (example,), dynamo=True, optimize=False, verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    result = optimize(exported.model).model
    ops = [n.op_type for n in result.graph]
    assert [o for o in ops if o in ("Conv", "BatchNormalization", "Gemm", "Relu")] == [
        "Conv", "Relu", "Conv", "Gemm",
    ]  # fmt: skip
    name = result.graph.inputs[0].name
    got = next(iter(Session(result).run({name: example.numpy()}).values()))
    np.testing.assert_allclose(got, net(example).detach().numpy(), rtol=0, atol=2e-6)


def test_external_weights_stay_where_they_are(make, tmp_path) -> None:
    """Neither the proof nor the search for equal weights nor a copy of the graph reads them in."""
    generator = np.random.default_rng(2)
    a = generator.normal(size=(64, 64)).astype(np.float32)
    text = """t (float[N,64] x, float[64,64] a, float[64,64] b, float[64,64] c) => (float[N,64] y)
    { h = Identity(x)  i = MatMul(h, a)  j = MatMul(i, b)  y = MatMul(j, c) }"""
    ir.save(make(text, a=a, b=a + 1, c=a), tmp_path / "m.onnx", external_data="m.data")
    model = ir.load(tmp_path / "m.onnx")
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    assert all(isinstance(t, ir.ExternalTensor) for t in tensors.values())
    result = optimize(model).model
    assert list(result.graph.initializers) == ["a", "b"], "c equals a"
    for name, value in result.graph.initializers.items():
        assert value.const_value is tensors[name]
    assert [n.op_type for n in result.graph] == ["MatMul"] * 3
