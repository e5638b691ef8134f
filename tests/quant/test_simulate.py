"""Training with rounding in place: the simulation is what the emitted model computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from quant.config import QuantizeConfig
from quant.domain import inline_functions
from quant.static import Prepared, chosen_linear, chosen_numbers, emit, prepare
from quant.train.fake import fake_quantize, fake_quantize_torch
from quant.train.simulate import Simulation

torch = pytest.importorskip("torch")

SCHEMES = ("int8", "w4a8", "w2a8", "w4a4", "w2a4")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side: threads that wait for each other would take minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def simulated(network: Any, batches: Any, **options: Any) -> tuple[Simulation, Prepared]:
    config = QuantizeConfig(rounding="nearest", bias_correction=False, **options)
    prepared = prepare(network, batches, config)
    return Simulation(prepared), prepared


def untrained(prepared: Prepared) -> Any:
    return emit(prepared, (), chosen_linear(prepared)).model


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_file_computes_what_was_trained(network, batches, run_ort, scheme, activations) -> None:
    simulation, _ = simulated(network, batches, scheme=scheme, activations=activations)
    module = simulation.module
    optimizer = torch.optim.Adam(list(module.parameters.values()), lr=3e-3)
    before = {n: v.detach().clone() for n, v in module.parameters.items()}
    for feeds in batches[:6]:
        optimizer.zero_grad()
        torch.square(module.run(feeds)["y"] - 1).mean().backward()
        optimizer.step()
        simulation.project()
    moved = {n for n, v in module.parameters.items() if not torch.equal(v, before[n])}
    assert moved == set(module.parameters)
    model = simulation.learned().model
    assert simulation.steps_apart(model, batches[7]) <= 0.1
    inline_functions(model)
    wanted = module.values(batches[7])["y"]
    step = max(float(s.detach()) for n, s in module.parameters.items() if n.startswith("scale_"))
    for optimize in (False, True):
        got = run_ort(model, batches[7], optimize=optimize)[0]
        assert np.mean(np.abs(got - wanted)) < 0.05 * step
        assert np.abs(got - wanted).max() < 2 * step


@pytest.mark.parametrize("change", ["scale", "levels"])
def test_a_wrong_number_in_the_file_is_seen(network, batches, change) -> None:
    simulation, _ = simulated(network, batches, scheme="int8")
    model = simulation.learned().model
    assert simulation.steps_apart(model, batches[7]) <= 0.1
    if change == "scale":
        value = next(n for n in model.graph if n.op_type == "QuantizeLinear").inputs[1]
        wrong = value.const_value.numpy() * np.float32(1.1)
    else:
        weights = model.graph.initializers.values()
        value = next(v for v in weights if v.name.endswith("_q") and len(v.shape) == 4)
        wrong = np.roll(value.const_value.numpy(), 1, axis=0)
    value.const_value = ir.tensor(wrong, name=value.name)
    assert simulation.steps_apart(model, batches[7]) > 0.5


def test_the_same_form_as_without_training(network, batches) -> None:
    simulation, prepared = simulated(network, batches, scheme="w4a4")
    ours, plain = simulation.learned().model, untrained(prepared)
    assert [n.op_type for n in ours.graph] == [n.op_type for n in plain.graph]
    for name, value in plain.graph.initializers.items():
        np.testing.assert_allclose(ours.graph.initializers[name].const_value, value.const_value)


def test_four_bits_in_integer_kernels(network, batches, engine_ops) -> None:
    _, prepared = simulated(network, batches, scheme="w4a4")
    model = untrained(prepared)
    inline_functions(model)
    ops = engine_ops(model)
    assert ops["QLinearConv"] == 3
    assert not ops.keys() & {"Conv", "FusedConv"}
    parameters, _ = chosen_numbers(prepared)
    names = [n for n in parameters if parameters[n].format.bits == 4]
    assert "x" not in names  # the first product reads 8 bits
    assert names


@pytest.mark.parametrize("axis", [-1, 1])
def test_fake_quantisation_and_its_gradients(axis) -> None:
    r = np.random.default_rng(1)
    x = (3 * r.normal(size=(4, 3, 5))).astype(np.float32)
    scale = np.float32(0.4) if axis < 0 else np.array([0.2, 0.4, 0.7], np.float32)
    keys = {"zero_point": 3, "low": 0, "high": 15, "axis": axis}
    ours = fake_quantize(x, np.asarray(scale), **keys)
    tx, ts = torch.tensor(x, requires_grad=True), torch.tensor(scale, requires_grad=True)
    theirs = fake_quantize_torch(tx, ts, **keys)
    np.testing.assert_array_equal(theirs.detach().numpy(), ours)
    weight = torch.tensor(r.normal(size=x.shape).astype(np.float32))
    (theirs * weight).sum().backward()
    spread = np.broadcast_to(np.asarray(scale).reshape(-1, 1), (3, 5)) if axis > 0 else scale
    steps = x / spread
    inside = (steps >= -3) & (steps <= 12)
    np.testing.assert_array_equal(tx.grad.numpy(), np.where(inside, weight.numpy(), 0))
    slope = (
        np.where(inside, np.rint(steps) - steps, np.clip(np.rint(steps), -3, 12)) * weight.numpy()
    )
    shares = np.size(scale)
    expected = slope.sum((0, 2)) if axis > 0 else slope.sum()
    expected = expected / np.sqrt(x.size / shares * 12)
    np.testing.assert_allclose(ts.grad.numpy(), expected, rtol=1e-4, atol=1e-5)
