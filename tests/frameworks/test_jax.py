"""JAX functions and Flax modules, compared with JAX."""

from __future__ import annotations

import numpy as np
import pytest

from infer_runtime.errors import ModelError, UsageError

KIND = "jax"
CODE = """
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from jax import lax

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(2, 8, rngs=rngs, decode=False)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.last = nnx.Linear(8, 5, rngs=rngs)

        def __call__(self, x):
            x = nnx.gelu(self.norm(self.conv(x)))
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
            x = x.reshape(x.shape[0], 16, 8)
            return self.last(self.drop(x + self.attention(x)).mean(1))

    def network():
        made = Network(nnx.Rngs(0))
        made.norm.mean.value = jnp.arange(8) / 10.0
        return made

    def loop():
        weight = jnp.eye(4) * 0.5

        def run(x, n):
            def step(carry, _):
                return carry @ weight + 1.0, carry.sum(-1)

            last, sums = lax.scan(step, x, None, length=3)
            return {"last": last * n[:, None], "sums": sums}

        return run

    def number():
        return 5

    def callback():
        shape = jax.ShapeDtypeStruct((2,), jnp.float32)
        return lambda x: jax.pure_callback(lambda v: v, shape, x)
"""


def test_flax_module(framework, normal) -> None:
    """In the form in which it is used, not trained; the batch stays open."""
    imported = framework.load(CODE, "network", "x:Bx8x8x3")
    assert [str(v.shape) for v in imported.model.graph.outputs] == ["[B,5]"]
    for batch in (1, 3):
        assert framework.agree(imported, x=normal(batch, 8, 8, 3))["output"].shape == (batch, 5)


def test_function_with_named_inputs_and_outputs(framework, normal) -> None:
    imported = framework.load(CODE, "loop", "n:B:float32", "x:Bx4")
    assert {v.name: str(v.shape) for v in imported.model.graph.outputs} == {
        "last": "[B,4]",
        "sums": "[3,B]",
    }
    x, n = normal(2, 4), np.array([1, 2], np.float32)
    outputs = framework.agree(imported, x=x, n=n)
    np.testing.assert_allclose(outputs["last"], (x / 8 + 1.75) * n[:, None], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("factory", "inputs", "kind", "text"),
    [
        ("number", ["x:2"], UsageError, r"number: returned int, expected a JAX function"),
        ("callback", ["x:2"], ModelError, r"callback: cannot be opened .*'pure_callback'"),
        ("nothing", ["x:2"], UsageError, r"has no function 'nothing'"),
        ("loop", ["x:2x4", "m:2"], UsageError, r"--input m: .*loop takes x, n"),
        ("loop", ["x:2x4", "n:2:int64"], UsageError, r"--input n: .* in 32 bits; state int32"),
        ("loop", [], UsageError, r"state its inputs with --input"),
    ],
)
def test_refusals(framework, factory, inputs, kind, text) -> None:
    with pytest.raises(kind, match=text) as caught:
        framework.load(CODE, factory, *inputs)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
