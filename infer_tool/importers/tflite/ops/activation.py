"""Activations, and what normalises along an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    from infer_tool.importers.tflite.call import Call

_CLIPS = {"RELU6": 3, "RELU_N1_TO_1": 2, "RELU": 1}


@op(*_CLIPS)
def relu(c: Call) -> None:
    """What other operators have as fused activations."""
    c.put(c.activate(c.real(0), _CLIPS[c.operator.name]))


@op("RELU_0_TO_1")
def relu_0_to_1(c: Call) -> None:
    """Between 0 and 1."""
    x = c.real(0)
    c.put(c.emit("Clip", x, c.number(0, x), c.number(1, x)))


@op("HARD_SWISH")
def hard_swish(c: Call) -> None:
    """x min(max(x + 3, 0), 6) / 6."""
    c.put(c.emit("HardSwish", c.real(0)))


@op("GELU")
def gelu(c: Call) -> None:
    """x Phi(x), or its approximation by tanh."""
    kind = "tanh" if c.options.flag("approximate") else "none"
    c.put(c.emit("Gelu", c.real(0), approximate=kind))


@op("LEAKY_RELU")
def leaky_relu(c: Call) -> None:
    """x, or alpha x where it is negative."""
    c.put(c.emit("LeakyRelu", c.real(0), alpha=c.options.real("alpha")))


@op("PRELU")
def prelu(c: Call) -> None:
    """x, or alpha x where it is negative, alpha being an input that is broadcast."""
    c.put(c.emit("PRelu", c.real(0), c.real(1)))


@op("SOFTMAX")
def softmax(c: Call) -> None:
    """exp(beta x) over its sum, along the last axis."""
    x, beta = c.real(0), c.options.real("beta")
    if beta != 1:
        x = c.emit("Mul", x, c.number(beta, x))
    c.put(c.emit("Softmax", x, axis=-1))


@op("LOG_SOFTMAX")
def log_softmax(c: Call) -> None:
    """The logarithm of the softmax along the last axis."""
    c.put(c.emit("LogSoftmax", c.real(0), axis=-1))


@op("L2_NORMALIZATION")
def l2_normalization(c: Call) -> None:
    """x over the root of its sum of squares along the last axis."""
    c.put(c.activated(c.emit("LpNormalization", c.real(0), axis=-1, p=2)))


@op("LOCAL_RESPONSE_NORMALIZATION")
def local_response_normalization(c: Call) -> None:
    """x / (bias + alpha sum of squares of the 2 radius + 1 channels around)^beta."""
    size = 2 * c.options.integer("radius") + 1
    y = c.emit(
        "LRN", c.real(0, (0, 3, 1, 2)), size=size, bias=c.options.real("bias"),
        alpha=c.options.real("alpha") * size, beta=c.options.real("beta"),
    )  # fmt: skip
    c.put(y, perm=(0, 2, 3, 1))
