"""States, signatures, what is built by hand, what is refused, and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infer_runtime import Session
from infer_runtime.errors import MissingExtraError, ModelError, UnsupportedOpError, UsageError
from infer_tool import convert as convert_model
from infer_tool.importers import ImportOptions, import_source

R = np.random.default_rng(11)


def _k(*shape: int) -> np.ndarray:
    return R.normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions over frames, each with the frames before in a variable, in int8."""
    tf = pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("streaming")
    kernels = [tf.constant(_k(*s) / 4) for s in ((5, 8, 16), (3, 16, 8), (8, 3))]

    class Stream(tf.Module):
        def __init__(self) -> None:
            self.first = tf.Variable(tf.zeros([1, 4, 8]), name="first")
            self.second = tf.Variable(tf.ones([1, 2, 16]), name="second")

        @tf.function(input_signature=[tf.TensorSpec([1, 1, 8], tf.float32)])
        def step(self, frame):
            joined = tf.concat([self.first, frame], 1)
            self.first.assign(joined[:, 1:])
            x = tf.nn.relu6(tf.nn.conv1d(joined, kernels[0], 1, "VALID"))
            joined = tf.concat([self.second, x], 1)
            self.second.assign(joined[:, 1:])
            x = tf.nn.relu(tf.nn.conv1d(joined, kernels[1], 1, "VALID"))
            return {"scores": tf.nn.softmax(tf.matmul(x[:, 0], kernels[2]))}

    model = Stream()
    tf.saved_model.save(model, str(folder / "saved"), signatures=model.step)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    converter.experimental_enable_resource_variables = True
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ({"frame": _k(1, 1, 8)} for _ in range(30))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "m.tflite").write_bytes(converter.convert())
    return folder / "m.tflite"


def test_states_over_fifty_steps(streaming, tmp_path) -> None:
    """Every integer equal, when each state output is fed to its input, also after optimising."""
    imported = import_source(str(streaming), ImportOptions())
    assert imported.states == {
        "state_in/first": "state_out/first", "state_in/second": "state_out/second",
    }  # fmt: skip
    report = convert_model(str(streaming), tmp_path / "m.onnx")
    assert [row[0] for row in report.details["States"]["rows"]] == list(imported.states)
    written = Session(tmp_path / "m.onnx")
    assert [i.name for i in written.inputs] == ["frame"]  # states have defaults
    states, after = {}, {}
    for _ in range(50):
        frame = {"frame": R.integers(-128, 128, (1, 1, 8)).astype(np.int8)}
        wanted = imported.reference(frame | states)
        for session, fed in ((Session(imported.model), states), (written, after)):
            got = session.run(frame | fed)
            for name, value in wanted.items():
                np.testing.assert_array_equal(got[name], value)
        states = {name: wanted[output] for name, output in imported.states.items()}
        after = {name: got[output] for name, output in imported.states.items()}
    assert any(np.any(value) for value in states.values())


def test_states_start_with_what_the_file_says(streaming) -> None:
    imported = import_source(str(streaming), ImportOptions())
    frame = {"frame": np.zeros((1, 1, 8), np.int8)}
    first = imported.reference(frame)
    initial = {"state_in/first": np.zeros((1, 4, 8)), "state_in/second": np.ones((1, 2, 16))}
    typed = {
        name: value.astype(imported.model.graph.initializers[name].const_value.dtype.numpy())
        for name, value in initial.items()
    }
    session = Session(imported.model)
    for feeds in (frame, frame | typed):  # a new start is a new start
        for got in (session.run(feeds), imported.reference(feeds)):
            for name, value in first.items():
                np.testing.assert_array_equal(got[name], value)
    assert json.loads(imported.model.metadata_props["infertool.states"]) == imported.states
    with pytest.raises(ModelError, match="first states or on from its last run"):
        imported.reference(frame | {"state_in/first": np.full((1, 4, 8), 7, np.float32)})


def _lstm(build, steps: int, clip: float, projection: int = 0, peephole: bool = False) -> Path:
    units, features = 4, 3
    wide = projection or units
    constants = [_k(units, features) for _ in range(4)] + [_k(units, wide) for _ in range(4)]
    constants += [_k(units) for _ in range(3)] if peephole else [None] * 3
    constants += [_k(units) for _ in range(4)]
    constants += [_k(projection, units), _k(projection)] if projection else [None, None]
    tensors = [((2, steps, features), "FLOAT32")]
    inputs = [0]
    for array in constants:
        inputs.append(-1 if array is None else len(tensors))
        if array is not None:
            tensors.append((array.shape, array))
    for width in (wide, units):
        inputs.append(len(tensors))
        tensors.append(((2, width), "FLOAT32", {"isVariable": True}))
    tensors.append(((2, steps, wide), "FLOAT32"))
    options = {"fusedActivationFunction": 4, "cellClip": clip, "projClip": 0.0}
    operator = (
        "UNIDIRECTIONAL_SEQUENCE_LSTM", inputs + [-1] * 4, [len(tensors) - 1],
        ("UnidirectionalSequenceLSTMOptions", options),
    )  # fmt: skip
    return build(tensors, [operator], [0], [len(tensors) - 1])


@pytest.mark.parametrize(
    ("clip", "projection", "peephole", "op"),
    [(0.0, 0, False, "LSTM"), (0.3, 0, False, "Scan"), (0.0, 5, True, "Scan"), (0.0, 0, True, "LSTM")],
)  # fmt: skip
def test_lstm(build, clip, projection, peephole, op) -> None:
    """The state goes on from run to run, as LiteRT keeps it in variable tensors."""
    imported = import_source(str(_lstm(build, 6, clip, projection, peephole)), ImportOptions())
    assert op in {n.op_type for n in imported.model.graph}
    session, states = Session(imported.model), {}
    for _ in range(3):
        feeds = {"t0": _k(2, 6, 3), **states}
        wanted, got = imported.reference(feeds), session.run(feeds)
        for name, value in wanted.items():
            np.testing.assert_allclose(got[name], value, rtol=0, atol=2e-6)
        states = {name: wanted[output] for name, output in imported.states.items()}


def test_bidirectional_lstm(build, agree) -> None:
    """One sample: with more of them LiteRT itself gives other results on every run."""
    units, features, steps = 4, 3, 5
    tensors, inputs = [((1, steps, features), "FLOAT32")], [0]

    def add(array) -> None:
        inputs.append(len(tensors))
        tensors.append((array.shape, array))

    for _ in range(2):
        for shape in [(units, features)] * 4 + [(units, units)] * 4:
            add(_k(*shape))
        inputs += [-1] * 3
        for _ in range(4):
            add(_k(units))
        inputs += [-1] * 2
    for _ in range(4):
        inputs.append(len(tensors))
        tensors.append(((1, units), "FLOAT32", {"isVariable": True}))
    output = len(tensors)
    tensors.append(((1, steps, 2 * units), "FLOAT32"))
    options = {"fusedActivationFunction": 4, "mergeOutputs": True, "timeMajor": False}
    path = build(
        tensors,
        [("BIDIRECTIONAL_SEQUENCE_LSTM", inputs + [-1] * 9, [output],
          ("BidirectionalSequenceLSTMOptions", options))],
        [0], [output],
    )  # fmt: skip
    agree(path, seeds=1)


def test_recurrent_layers_without_gates(build, agree) -> None:
    sequence = [
        ((2, 5, 3), "FLOAT32"), ((4, 3), _k(4, 3)), ((4, 4), _k(4, 4)), ((4,), _k(4)),
        ((2, 4), "FLOAT32", {"isVariable": True}), ((2, 5, 4), "FLOAT32"),
    ]  # fmt: skip
    options = {"fusedActivationFunction": 4}
    one = ("UNIDIRECTIONAL_SEQUENCE_RNN", [0, 1, 2, 3, 4], [5], ("SequenceRNNOptions", options))
    agree(build(sequence, [one], [0], [5]), seeds=1)
    both = [
        *sequence[:5], ((4, 3), _k(4, 3)), ((4, 4), _k(4, 4)), ((4,), _k(4)),
        ((2, 4), "FLOAT32", {"isVariable": True}), ((2, 5, 8), "FLOAT32"),
    ]  # fmt: skip
    two = (
        "BIDIRECTIONAL_SEQUENCE_RNN", [*range(9), -1, -1, -1], [9],
        ("BidirectionalSequenceRNNOptions", {**options, "mergeOutputs": True}),
    )  # fmt: skip
    agree(build(both, [two], [0], [9]), seeds=1)
    step = [
        ((2, 3), "FLOAT32"), ((6, 3), _k(6, 3)), ((6, 4), _k(6, 4)), ((3,), _k(3)),
        ((2, 24), "FLOAT32", {"isVariable": True}), ((2, 3), "FLOAT32"),
    ]  # fmt: skip
    svdf = (
        "SVDF",
        [0, 1, 2, 3, 4],
        [5],
        ("SVDFOptions", {"rank": 2, "fusedActivationFunction": 1}),
    )
    agree(build(step, [svdf], [0], [5]), seeds=1)


def test_a_called_subgraph(build) -> None:
    """LiteRT has no kernel for CALL in all versions: computed by hand."""
    inner = ([((2,), "FLOAT32"), ((2,), "FLOAT32")],
             [("MUL", [0, 0], [1], ("MulOptions", {}))], [0], [1])  # fmt: skip
    path = build(
        [((2,), "FLOAT32"), ((2,), "FLOAT32")],
        [("CALL", [0], [1], ("CallOptions", {"subgraph": 1}))], [0], [1], [inner],
    )  # fmt: skip
    x = _k(2)
    (got,) = Session(import_source(str(path), ImportOptions()).model).run({"t0": x}).values()
    np.testing.assert_allclose(got, x * x)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two signatures, with an input and an output of one name."""
    tf = pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("signed")

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")] * 1)
        def double(self, x):
            return {"x": x * 2, "sum": tf.reduce_sum(x, 1)}

        @tf.function(
            input_signature=[tf.TensorSpec([2], name="b"), tf.TensorSpec([2], tf.int32, "a")]
        )
        def mixed(self, b, a):
            return {"z": b - tf.cast(a, tf.float32), "y": a * 3}

    model = Two()
    signatures = {"double": model.double, "mixed": model.mixed}
    tf.saved_model.save(model, str(folder / "saved"), signatures=signatures)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder / "saved"), signature_keys=["double", "mixed"]
    )
    (folder / "m.tflite").write_bytes(converter.convert())
    return folder / "m.tflite"


def test_signatures(signed) -> None:
    with pytest.raises(UsageError, match="several signatures; choose: --signature double, mixed"):
        import_source(str(signed), ImportOptions())
    with pytest.raises(UsageError, match="--signature none: the file has double, mixed"):
        import_source(str(signed), ImportOptions(signature="none"))
    double = import_source(str(signed), ImportOptions(signature="double"))
    x = _k(4, 3)
    for run in (Session(double.model).run, double.reference):
        got = run({"x": x})
        np.testing.assert_allclose(got["x_output"], 2 * x)
        np.testing.assert_allclose(got["sum"], x.sum(1), rtol=1e-5)
    mixed = import_source(str(signed), ImportOptions(signature="mixed"))
    feeds = {"a": np.array([1, 2], np.int32), "b": np.array([5, 7], np.float32)}
    for run in (Session(mixed.model).run, mixed.reference):
        got = run(feeds)
        np.testing.assert_array_equal(got["y"], [3, 6])
        np.testing.assert_array_equal(got["z"], [4, 5])


def test_operators_that_nobody_imports_are_counted(build) -> None:
    tensors = [((2,), "FLOAT32")] * 5
    operators = [
        ("ABS", [0], [1], ("AbsOptions", {})), ("CUSTOM:Mystery", [1], [2]),
        ("CUSTOM:Mystery", [2], [3]), ("HASHTABLE", [3], [4]),
    ]  # fmt: skip
    path = build(tensors, operators, [0], [4])
    with pytest.raises(UnsupportedOpError) as caught:
        import_source(str(path), ImportOptions())
    assert "custom operator 'Mystery' (2x), HASHTABLE (1x)" in str(caught.value)
    assert "first at operator 1 of subgraph 0" in str(caught.value)


def test_subgraphs_that_call_themselves(build) -> None:
    path = build(
        [((2,), "FLOAT32"), ((2,), "FLOAT32")],
        [("CALL", [0], [1], ("CallOptions", {"subgraph": 0}))], [0], [1],
    )  # fmt: skip
    with pytest.raises(ModelError, match="subgraph 0 calls itself"):
        import_source(str(path), ImportOptions())


def test_subgraphs_that_unfold_without_end(build, monkeypatch) -> None:
    """Each calls the next one twice."""
    monkeypatch.setattr("infer_tool.importers.tflite.builder.MAX_NODES", 1000)

    def graph(operators):
        return [((2,), "FLOAT32")] * 3, operators, [0], [2]

    def twice(n):
        return [("CALL", [0], [1], ("CallOptions", {"subgraph": n})),
                ("CALL", [1], [2], ("CallOptions", {"subgraph": n}))]  # fmt: skip

    others = [graph(twice(i + 2)) for i in range(39)]
    others.append(graph([("ABS", [0], [2], ("AbsOptions", {}))]))
    path = build(*graph(twice(1)), others)
    with pytest.raises(ModelError, match="unfold into more than 1000 nodes"):
        import_source(str(path), ImportOptions())


def test_weights_that_are_not_in_the_file(build) -> None:
    path = build(
        [((1,), "RESOURCE"), ((2,), "FLOAT32"), ((2,), "FLOAT32"), ((2,), "FLOAT32")],
        [
            ("VAR_HANDLE", [], [0], ("VarHandleOptions", {"sharedName": b"w"})),
            ("READ_VARIABLE", [0], [1], ("ReadVariableOptions", {})),
            ("ADD", [1, 2], [3], ("AddOptions", {})),
        ],
        [2], [3],
    )  # fmt: skip
    with pytest.raises(ModelError, match="variable 'w' has no first value in the file"):
        import_source(str(path), ImportOptions())


def test_without_an_interpreter_nothing_is_written(signed, tmp_path, monkeypatch) -> None:
    """The import itself needs none; the comparison that did not happen is no passed one."""
    monkeypatch.setattr("infer_tool.importers.tflite.reference.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"m\.tflite: .*pip install 'infertool\[litert\]'"):
        convert_model(str(signed), tmp_path / "m.onnx", signature="double")
    assert list(tmp_path.iterdir()) == []


def test_no_framework_is_imported(signed) -> None:
    code = (
        "import sys; from infer_tool.importers import import_source, ImportOptions\n"
        f"import_source({str(signed)!r}, ImportOptions(signature='double'))\n"
        "print([m for m in ('tensorflow', 'ai_edge_litert', 'flatbuffers', 'onnxruntime') "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
