"""The executor: feeds, intermediate values, lifetimes, subgraphs, functions, errors."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session, run_node
from infer_runtime.errors import FeedError, KernelError, ModelError, UnsupportedOpError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHAIN = """<ir_version: 10, opset_import: ["": 20]>
g (float[N,2] x) => (float[N,2] y) <float[2] w = {2, 3}> {
  a = Mul(x, w)
  b = Relu(a)
  c = Neg(b)
  y = Exp(c)
}"""
X = np.array([[1, -1]], np.float32)


def session(text: str) -> Session:
    return Session(ir.from_onnx_text(text))


def test_inputs_and_outputs_are_described() -> None:
    s = session(CHAIN)
    (x,), (y,) = s.inputs, s.outputs
    assert (x.name, x.shape, x.dtype) == ("x", ("N", 2), np.float32)
    assert (y.name, y.shape, y.dtype) == ("y", ("N", 2), np.float32)


def test_any_value_can_be_asked_for() -> None:
    found = session(CHAIN).run({"x": X}, ["b", "x", "w", "y"])
    assert list(found) == ["b", "x", "w", "y"]
    assert found["b"].tolist() == [[2, 0]]
    assert found["w"].tolist() == [2, 3]
    np.testing.assert_allclose(found["y"], [[np.exp(-2), 1]], rtol=1e-6)


def test_an_unknown_value() -> None:
    with pytest.raises(FeedError, match="no value named 'q'"):
        session(CHAIN).run({"x": X}, ["q"])


def test_observe_sees_every_value_in_order() -> None:
    seen: dict[str, list[float]] = {}
    session(CHAIN).run({"x": X}, observe=lambda name, a: seen.update({name: a.ravel().tolist()}))
    assert list(seen) == ["x", "a", "b", "c", "y"]
    assert seen["a"] == [2, -3]


def test_values_are_freed_after_their_last_use() -> None:
    alive: dict[str, weakref.ref[Any]] = {}
    left: dict[str, set[str]] = {}

    def observe(name: str, array: np.ndarray) -> None:
        left[name] = {n for n, ref in alive.items() if ref() is not None}
        alive[name] = weakref.ref(array)

    session(CHAIN).run({"x": X.copy()}, observe=observe)
    assert left["y"] == {"x", "c"}  # the caller holds x


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "input 'x' has no feed"),
        ({"x": X, "z": X}, r"no input named 'z'; the inputs are \['x'\]"),
        ({"x": X.astype(np.float64)}, "input 'x': dtype float64, expected float32"),
        ({"x": X[0]}, r"input 'x': shape \[2\], expected \[N, 2\]"),
        ({"x": X[:, :1]}, r"input 'x': shape \[1, 1\], expected \[N, 2\]"),
    ],
)
def test_feeds_that_do_not_fit(feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(FeedError, match=message):
        session(CHAIN).run(feeds)


def test_an_initializer_that_is_an_input_has_a_default() -> None:
    s = session("""<ir_version: 10, opset_import: ["": 20]>
        g (float[1] x, float[1] w = {2}) => (float[1] y) { y = Mul(x, w) }""")
    three = np.array([3], np.float32)
    assert [i.name for i in s.inputs] == ["x"]
    assert s.run({"x": three})["y"] == 6
    assert s.run({"x": three, "w": three})["y"] == 9


def test_a_run_changes_neither_feeds_nor_model() -> None:
    model = ir.from_onnx_text(CHAIN)
    before = ir.to_onnx_text(model)
    x = X.copy()
    Session(model).run({"x": x})
    assert x.tolist() == X.tolist()
    assert ir.to_onnx_text(model) == before


def test_a_failing_kernel_names_the_node_and_the_shapes() -> None:
    text = CHAIN.replace("a = Mul(x, w)", "k = Constant<value_ints=[3,5]>()\n a = Reshape(x, k)")
    model = ir.from_onnx_text(text)
    for i, node in enumerate(model.graph):
        node.name = f"n{i}"
    with pytest.raises(KernelError, match=r"node n1 \(Reshape\) .*float32\[1, 2\], int64\[2\]"):
        Session(model).run({"x": X})


def test_all_unsupported_operators_are_named_at_load() -> None:
    with pytest.raises(UnsupportedOpError, match=r"Foo .*Bar") as caught:
        session("""<ir_version: 10, opset_import: ["": 20, "my.domain": 1]>
            g (float[1] x) => (float[1] y) {
              a = my.domain.Foo(x)
              b = my.domain.Foo(a)
              y = Bar(b)
            }""")
    assert str(caught.value).count("Foo") == 1
    assert "my.domain::Foo at opset 1" in str(caught.value)


def test_an_attribute_that_the_opset_does_not_have() -> None:
    with pytest.raises(UnsupportedOpError, match="attribute 'axes'"):
        session("""<ir_version: 10, opset_import: ["": 20]>
            g (float[1] x) => (float[1] y) { y = ReduceSum<axes=[0]>(x) }""")


def test_an_unsorted_graph_is_sorted() -> None:
    s = session("""<ir_version: 10, opset_import: ["": 20]>
        g (float[1] x) => (float[1] y) { y = Neg(b)  b = Exp(a)  a = Neg(x) }""")
    assert s.run({"x": np.zeros(1, np.float32)})["y"] == -1


def test_a_cycle() -> None:
    with pytest.raises(ModelError, match=r"a cycle through .*Neg.*Exp"):
        session("""<ir_version: 10, opset_import: ["": 20]>
            g (float[1] x) => (float[1] y) { y = Neg(b)  b = Exp(y) }""")


def test_a_value_that_nothing_computes() -> None:
    with pytest.raises(ModelError, match=r"Neg.* uses 'b', which nothing computes"):
        session("""<ir_version: 10, opset_import: ["": 20]>
            g (float[1] x) => (float[1] y) { y = Neg(b) }""")


def test_a_value_computed_twice() -> None:
    model = ir.from_onnx_text(CHAIN)
    model.graph[1].outputs[0].name = "a"
    with pytest.raises(ModelError, match=r"Relu.* computes 'a', which exists already"):
        Session(model)


def test_profile_names_every_node() -> None:
    s = Session(ir.from_onnx_text(CHAIN), profile=True)
    s.run({"x": X})
    assert [t.op for t in s.profile()] == ["Mul", "Relu", "Neg", "Exp"]
    assert {t.bytes for t in s.profile()} == {8}
    assert all(t.ms > 0 for t in s.profile())
    with pytest.raises(UsageError, match="profile=True"):
        session(CHAIN).profile()


def test_batches_give_what_one_run_gives() -> None:
    s, x = session(CHAIN), np.arange(14, dtype=np.float32).reshape(7, 2)
    whole, parts = s.run({"x": x}), s.run_batches({"x": x}, 3)
    assert parts["y"].tolist() == whole["y"].tolist()
    with pytest.raises(FeedError, match="at least one"):
        s.run_batches({"x": x[:0]}, 3)


def test_constants_are_folded_once_and_can_still_be_asked_for() -> None:
    s = Session(
        ir.from_onnx_text("""<ir_version: 10, opset_import: ["": 20]>
        g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Neg(w)  b = Exp(a)  y = Mul(x, b) }"""),
        profile=True,
    )
    found = s.run({"x": X[0]}, ["a", "y"])
    assert found["a"].tolist() == [-1, -2]
    assert [t.op for t in s.profile()] == ["Mul"]


def test_only_what_is_asked_for_is_computed() -> None:
    s = session("""<ir_version: 10, opset_import: ["": 20]>
        g (float[2] x) => (float[N] y) <int64[2] seven = {7, 7}> { a = Neg(x)  y = Reshape(a, seven) }""")
    assert s.run({"x": X[0]}, ["a"])["a"].tolist() == [-1, 1]
    with pytest.raises(KernelError):
        s.run({"x": X[0]})


def test_an_unknown_operator_names_those_that_are_close() -> None:
    with pytest.raises(UnsupportedOpError, match=r"close to it: .*LayerNormalization"):
        session("""<ir_version: 10, opset_import: ["": 20]>
            g (float[1] x) => (float[1] y) { y = LayerNorm(x) }""")


def test_a_missing_input_and_a_missing_attribute() -> None:
    with pytest.raises(ModelError, match=r"Add.*input 'b' is missing"):
        session("""<ir_version: 10, opset_import: ["": 20]>
            g (float[1] x) => (float[1] y) { y = Add(x) }""")
    with pytest.raises(ModelError, match=r"Concat.*attribute 'axis' is missing"):
        session("""<ir_version: 10, opset_import: ["": 20]>
            g (float[1] x) => (float[1] y) { y = Concat(x, x) }""")


def test_the_memory_bound_counts_views_once() -> None:
    s = session("""<ir_version: 10, opset_import: ["": 20]>
        g (float[8] x) => (float[8] y) <int64[2] s = {2, 4}, int64[1] t = {-1}> {
          a = Neg(x)  b = Reshape(a, s)  c = Exp(b)  d = Reshape(c, t)  y = Abs(d) }""")
    x = np.zeros(8, np.float32)
    # x, two live arrays of 32 bytes (and the result before the older one is freed), constants.
    assert s.memory_bound({"x": x}) == 32 + 2 * 32 + 24


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: no such file"):
        Session(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ModelError, match=r"text\.onnx: not a readable ONNX model"):
        Session(tmp_path / "text.onnx")


def test_a_file(tmp_path: Path) -> None:
    ir.save(ir.from_onnx_text(CHAIN), tmp_path / "m.onnx")
    assert Session(tmp_path / "m.onnx").run({"x": X})["y"].shape == (1, 2)


IF = """<ir_version: 10, opset_import: ["": 20]>
g (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> {
  t = Mul(x, w)
  y = If (c) <
    then_branch = th () => (float[2] a) { a = Add(t, w) },
    else_branch = el () => (float[2] b) {
      b = If (c) <
        then_branch = tt () => (float[2] d) { d = Neg(x) },
        else_branch = ee () => (float[2] e) { e = Sub(t, x) }
      >
    }
  >
}"""


@pytest.mark.parametrize("c", [True, False])
def test_if_captures_values_of_all_scopes(model_agrees: Callable[..., None], c: bool) -> None:
    model_agrees(IF, x=np.array([3, 4], np.float32), c=np.array(c))


def test_captured_values_live_until_the_subgraph_ran() -> None:
    found = session(IF).run({"x": np.array([3, 4], np.float32), "c": np.array(False)})
    assert found["y"].tolist() == [0, 4]


LOOP = """<ir_version: 10, opset_import: ["": 20]>
g (float[2] x, int64 m) => (float[2] total, float[K,2] rows) <bool go = {1}, float[1] k = {10}> {
  total, rows = Loop (m, go, x) <
    body = b (int64 i, bool c, float[2] s) => (bool c2, float[2] s2, float[2] row) {
      f = Cast<to=1>(i)
      s2 = Add(s, f)
      row = Mul(s2, x)
      top = ReduceMax<keepdims=0>(s2)
      c2 = Less(top, k0)
      k0 = Squeeze(k)
    }
  >
}""".replace("      c2 = Less(top, k0)\n      k0 = Squeeze(k)\n",
             "      k0 = Squeeze(k)\n      c2 = Less(top, k0)\n")  # fmt: skip


@pytest.mark.parametrize("m", [0, 1, 3, 100])
def test_loop(model_agrees: Callable[..., None], m: int) -> None:
    model_agrees(LOOP, x=np.array([1, 2], np.float32), m=np.array(m, np.int64))


SCAN = """<ir_version: 10, opset_import: ["": 20]>
g (float[2] x, float[4,2] seq) => (float[2] last, float[4,2] sums) {
  last, sums = Scan <num_scan_inputs=1, scan_input_directions=[1], scan_output_directions=[1],
    body = b (float[2] s, float[2] e) => (float[2] s2, float[2] out) {
      s2 = Add(s, e)
      out = Mul(s2, x)
    }
  > (x, seq)
}"""


def test_scan_backwards(model_agrees: Callable[..., None], rng: Any) -> None:
    model_agrees(SCAN, x=np.ones(2, np.float32), seq=rng.normal(size=(4, 2)).astype(np.float32))


FUNCTIONS = """<ir_version: 10, opset_import: ["": 20, "mine": 1]>
g (float[2] x) => (float[2] y) {
  a = mine.twice_plus<c = 3.0>(x)
  y = mine.outer(a)
}
<domain: "mine", opset_import: ["": 20]>
twice_plus <c>(v) => (r) {
  k = Constant<value_float: float = @c>()
  d = Add(v, v)
  r = Add(d, k)
}
<domain: "mine", opset_import: ["": 20, "mine": 1]>
outer (v) => (r) {
  d = mine.twice_plus<c = 1.0>(v)
  r = Neg(d)
}"""


def test_local_functions_are_inlined_on_a_copy() -> None:
    model = ir.from_onnx_text(FUNCTIONS)
    y = Session(model).run({"x": np.array([1, 2], np.float32)})["y"]
    assert y.tolist() == [-11, -15]
    assert len(model.functions) == 2
    assert [n.op_type for n in model.graph] == ["twice_plus", "outer"]


def test_run_node_of_several_outputs() -> None:
    node = ir.node("Split", [ir.val("x")], {"axis": 0, "num_outputs": 2}, num_outputs=2)
    first, second = run_node(node, [np.arange(3)], 20)
    assert (first.tolist(), second.tolist()) == ([0, 1], [2])


def test_run_node_gives_arrays_for_scalars() -> None:
    (y,) = run_node(ir.node("Add", [ir.val("a"), ir.val("b")]), [np.array(1), np.array(2)], 20)
    assert isinstance(y, np.ndarray)
    assert y.shape == ()


def test_run_node_refuses_subgraphs() -> None:
    node = next(n for n in ir.from_onnx_text(IF).graph if n.op_type == "If")
    with pytest.raises(UnsupportedOpError, match="holds a subgraph"):
        run_node(node, [np.array(True)], 20)
