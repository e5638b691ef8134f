"""Valid models, and random changes that break them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    import random

SAMPLES = Path(__file__).parents[2] / "sample_models"

TEXTS = [
    """<ir_version: 10, opset_import: ["": 20]>
    g (float[1,3,8,8] x) => (float[N,4] y) <float[4,3,3,3] w, float[4] b, float[4] s, float[4] v, int64[2] shape = {1, -1},
       float[16,4] d, float[4] e> {
      c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b)
      n = BatchNormalization(c, s, b, e, v)
      r = Relu(n)
      p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
      f = Reshape(p, shape)
      y = Gemm(f, d, e)
    }""",
    """<ir_version: 10, opset_import: ["": 20]>
    g (float[2,5] x, int64[3] i) => (float[N,M] y, int64[K] n) <float four = {4}, int64[1] one = {1}, int64[2] s = {1, 2}, float lo = {-1}> {
      a = Gather<axis=1>(x, i)
      t = Transpose<perm=[1,0]>(a)
      e = Expand(t, s)
      c = Concat<axis=0>(e, t)
      p = Pad(c, q)
      l = Tile(p, s)
      u = Unsqueeze(l, one)
      z = Squeeze(u, one)
      k = Clip(z, lo, four)
      y = Softmax(k)
      n = Shape(y)
    }""".replace("lo = {-1}>", "lo = {-1}, int64[4] q = {0, 1, 1, 0}>"),
    """<ir_version: 10, opset_import: ["": 20]>
    g (float[2] x, bool c) => (float[2] y, float[K,2] rows) <int64 m = {3}, bool go = {1}, float[2] w = {1, 2}> {
      t = If (c) < then_branch = th () => (float[2] a) { a = Add(x, w) }, else_branch = el () => (float[2] b) { b = Mul(x, w) } >
      y, rows = Loop (m, go, t) < body = b (int64 i, bool d, float[2] s) => (bool d2, float[2] s2, float[2] row) {
        d2 = Identity(d)
        s2 = Add(s, x)
        row = Mul(s2, w)
      } >
    }""",
    """<ir_version: 10, opset_import: ["": 20]>
    g (float[1,2,4,4] x) => (uint8[N,C,H,W] y, float[N,C,H,W] z) <float s = {0.1}, uint8 o = {128}, float[4] scales = {1, 1, 2, 1.5}, int64[2] axes = {2, 3}> {
      q = QuantizeLinear(x, s, o)
      d = DequantizeLinear(q, s, o)
      r = Resize<mode="linear">(d, , scales)
      z = ReduceMean(r, axes)
      y = QuantizeLinear(r, s, o)
    }""",
    """<ir_version: 10, opset_import: ["": 20]>
    g (float[3,1,4] x) => (float[T,D,N,H] y) <float[1,12,4] w, float[1,12,3] r> {
      y, h, c = LSTM<hidden_size=3>(x, w, r)
    }""",
    """<ir_version: 10, opset_import: ["": 20, "local": 1]>
    g (float[4] x) => (float[N] y) <int64[1] k = {3}, int64 z = {0}, int64 five = {5}, int64 one = {1}> {
      a = local.twice(x)
      v, i = TopK(a, k)
      g = Gather(x, i)
      s = Range(z, five, one)
      n = NonZero(g)
      o = ConstantOfShape(k)
      y = Max(v, o)
    }
    <opset_import: ["": 20], domain: "local">
    twice (a) => (b) { b = Add(a, a) }""",
]  # fmt: skip


def models() -> list[onnx.ModelProto]:
    found = [onnx.parser.parse_model(text) for text in TEXTS]
    for model in found:  # values declared without data are weights
        for value in model.graph.value_info:
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            data = np.ones(shape, np.float32) / 4
            model.graph.initializer.append(onnx.numpy_helper.from_array(data, value.name))
    return [*found, *(onnx.load(SAMPLES / f"digits_{n}.onnx") for n in ("mlp", "gru"))]


def graphs(model: onnx.ModelProto) -> list[Any]:
    found: list[Any] = [model.graph]
    for graph in found:
        found += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return found


def mutant(sources: list[onnx.ModelProto], number: int, rng: random.Random) -> onnx.ModelProto:
    """One of the sources after one to three changes."""
    model = onnx.ModelProto()
    model.CopyFrom(sources[number % len(sources)])
    for _ in range(rng.randrange(1, 4)):
        mutate(model, rng)
    return model


def mutate(model: onnx.ModelProto, rng: random.Random) -> str:
    """One random change; returns what it was."""
    graph = rng.choice(graphs(model))
    kinds = [rename_input, drop_input, change_op, change_attribute, drop_attribute, change_tensor,
             change_dims, change_type, drop_initializer, drop_node, shuffle, duplicate, change_opset,
             change_input_shape, flip_bytes, recursive, change_output]  # fmt: skip
    rng.choice(kinds)(model, graph, rng)
    return ""


def names(graph: Any) -> list[str]:
    given = [v.name for v in graph.input] + [i.name for i in graph.initializer]
    return [*given, *(o for n in graph.node for o in n.output), "nowhere", ""]


def rename_input(model: Any, graph: Any, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names(graph))


def drop_input(model: Any, graph: Any, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    if node.input:
        del node.input[rng.randrange(len(node.input))]


def change_op(model: Any, graph: Any, rng: random.Random) -> None:
    ops = ["Add", "Conv", "MatMul", "Reshape", "Gather", "Concat", "LSTM", "Nonsense", "Resize", "Einsum", "TopK",
           "NonMaxSuppression", "ConvTranspose", "Range", "Loop", "CumSum", "DepthToSpace", "Attention", "OneHot"]  # fmt: skip
    rng.choice(graph.node).op_type = rng.choice(ops)


def attribute(graph: Any, rng: random.Random) -> Any:
    found = [a for node in graph.node for a in node.attribute]
    return rng.choice(found) if found else None


def change_attribute(model: Any, graph: Any, rng: random.Random) -> None:
    a = attribute(graph, rng)
    value = rng.choice([-(2**31), -7, -1, 0, 1, 2, 3, 1000, 2**40])
    if a is None:
        return
    if a.type == onnx.AttributeProto.INT:
        a.i = value
    elif a.type == onnx.AttributeProto.INTS:
        if a.ints and rng.random() < 0.7:
            a.ints[rng.randrange(len(a.ints))] = value
        else:
            a.ints.append(value)
    elif a.type == onnx.AttributeProto.FLOAT:
        a.f = rng.choice([0.0, -1.0, float("nan"), float("inf")])
    elif a.type == onnx.AttributeProto.STRING:
        a.s = rng.choice([b"", b"nonsense", b"cubic", b"\xff"])


def drop_attribute(model: Any, graph: Any, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    if node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def tensor(graph: Any, rng: random.Random) -> Any:
    return rng.choice(graph.initializer) if graph.initializer else None


def change_tensor(model: Any, graph: Any, rng: random.Random) -> None:
    t = tensor(graph, rng)
    if t is None:
        return
    value = rng.choice([-(2**62), -9, -1, 0, 1, 7, 10**6, 10**9, 2**62])
    if t.int64_data:
        t.int64_data[rng.randrange(len(t.int64_data))] = value
    elif t.float_data:
        t.float_data[rng.randrange(len(t.float_data))] = rng.choice([0.0, -1.0, float("nan"), 1e9])


def change_dims(model: Any, graph: Any, rng: random.Random) -> None:
    t = tensor(graph, rng)
    if t is None:
        return
    if t.dims and rng.random() < 0.7:
        t.dims[rng.randrange(len(t.dims))] = rng.choice([0, 1, 2, 5, -1, 2**40])
    else:
        t.dims.append(rng.choice([0, 1, 2]))


def change_type(model: Any, graph: Any, rng: random.Random) -> None:
    t = tensor(graph, rng)
    if t is not None:
        t.data_type = rng.choice([0, 1, 3, 6, 7, 8, 9, 10, 16, 22, 99])


def drop_initializer(model: Any, graph: Any, rng: random.Random) -> None:
    if graph.initializer:
        del graph.initializer[rng.randrange(len(graph.initializer))]


def drop_node(model: Any, graph: Any, rng: random.Random) -> None:
    if len(graph.node) > 1:
        del graph.node[rng.randrange(len(graph.node))]


def shuffle(model: Any, graph: Any, rng: random.Random) -> None:
    nodes = list(graph.node)
    rng.shuffle(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def duplicate(model: Any, graph: Any, rng: random.Random) -> None:
    graph.node.append(rng.choice(graph.node))


def change_opset(model: Any, graph: Any, rng: random.Random) -> None:
    model.opset_import[0].version = rng.choice([-1, 0, 1, 6, 9, 11, 13, 18, 25, 999])


def change_input_shape(model: Any, graph: Any, rng: random.Random) -> None:
    value = rng.choice(graph.input) if graph.input else None
    if value is not None and value.type.tensor_type.shape.dim:
        value.type.tensor_type.shape.dim[0].dim_value = rng.choice([-1, 0, 2, 3])


def change_output(model: Any, graph: Any, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    if node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice(names(graph))


def flip_bytes(model: Any, graph: Any, rng: random.Random) -> None:
    raw = bytearray(model.SerializeToString())
    for _ in range(rng.randrange(1, 4)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    try:
        changed = onnx.ModelProto.FromString(bytes(raw))
    except Exception:  # noqa: BLE001 - not a protobuf any more: that file is another test's
        return
    model.CopyFrom(changed)


def recursive(model: Any, graph: Any, rng: random.Random) -> None:
    for function in model.functions:
        function.node.append(
            onnx.helper.make_node(
                function.name, [function.input[0]], ["again"], domain=function.domain
            )
        )
