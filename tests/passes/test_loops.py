"""State and outputs of loops that nobody reads; and what must stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from passes.narrow_loops import NarrowLoops

LOOP = """t (float[3] x, float[3] w, int64 m, bool c) => (float[] y, float[] z)
{{ a, b, k, s = Loop (m, c, x, w, x) <body = g (int64 i, bool d, float[3] p, float[3] q, float[3] r)
    => (bool e, float[3] a1, float[3] b1, float[3] k1, float[3] s1) {{ e = Identity(d)
      a1 = Add({adds})  b1 = Neg(q)  {last}  s1 = Exp(p) }}>
  y = Identity({y})  z = {z} }}"""


def _loop(make_known, adds="p, p", last="k1 = Neg(r)", y="a", z="Neg(w)"):
    text = LOOP.format(adds=adds, last=last.replace("k1 = r", ""), y=y, z=z)
    if last == "k1 = r":
        text = text.replace("float[3] k1", "float[3] r")
    return make_known(text, m=np.int64(3), c=np.array(True))


@pytest.mark.parametrize(
    ("changed", "inputs", "outputs"),
    [
        ({}, 1, 1),
        ({"z": "Neg(s)"}, 1, 2),
        ({"z": "Neg(b)"}, 2, 2),
        ({"adds": "p, q"}, 2, 2),  # b is not read, but goes into a
        ({"adds": "p, r", "last": "k1 = Neg(q)"}, 3, 3),
        ({"adds": "p, r", "last": "k1 = r"}, 1, 1),  # never changes: read from outside
        ({"adds": "p, r", "last": "k1 = r", "z": "Neg(k)"}, 1, 1),
        ({"adds": "p, r", "last": "k1 = Identity(r)"}, 1, 1),
        ({"y": "k", "last": "k1 = r", "z": "Neg(a)"}, 1, 1),
    ],
)
def test_loops_keep_what_is_read(apply_pass, make_known, changed, inputs, outputs) -> None:
    _, outcome, after = apply_pass(NarrowLoops(), _loop(make_known, **changed))
    loop = next(n for n in after.graph if n.op_type == "Loop")
    assert (len(loop.inputs) - 2, len(loop.outputs)) == (inputs, outputs)
    assert outcome.changes == int(inputs < 3 or outputs < 4)
    assert NarrowLoops().apply(after).changes == 0


def test_a_loop_of_which_everything_is_read_stays(apply_pass, make_known) -> None:
    z = "Sum(b, k, x)  unread = Neg(s)  o = Identity(unread)"
    model = _loop(make_known, z=z)
    assert NarrowLoops().apply(model).changes == 0


def test_state_that_is_a_graph_output_stays(apply_pass, make_known) -> None:
    model = _loop(make_known, last="k1 = r")
    loop = next(n for n in model.graph if n.op_type == "Loop")
    loop.outputs[2].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.append(loop.outputs[2])
    _, _, after = apply_pass(NarrowLoops(), model)
    assert [o.name for o in after.graph.outputs] == ["y", "z", "k"]


SCAN = """t (float[3] x, float[3] w, float[5,3] u) => (float[] y, float[] z)
{{ a, b, s, v = Scan <num_scan_inputs=1, scan_output_axes=[0,1], scan_output_directions=[0,1],
    body = g (float[3] p, float[3] q, float[3] r) => (float[3] a1, float[3] b1,
      float[3] s1, float[3] v1) {{ a1 = Add(p, r)  b1 = Identity(q)  s1 = Mul(q, r)  v1 = Neg(p) }}> (x, w, u)
  y = Neg(a)  z = Neg({z}) }}"""


@pytest.mark.parametrize(("z", "outputs", "axes"), [("v", 2, (1,)), ("s", 2, (0,)), ("x", 1, ())])
def test_scans_keep_what_is_read(apply_pass, make_known, z, outputs, axes) -> None:
    """The second state never changes; the axes belong to the outputs that are left."""
    _, _, after = apply_pass(NarrowLoops(), make_known(SCAN.format(z=z)))
    scan = next(n for n in after.graph if n.op_type == "Scan")
    assert (len(scan.inputs), len(scan.outputs)) == (2, outputs)
    assert tuple(scan.attributes.get_ints("scan_output_axes", ())) == axes
