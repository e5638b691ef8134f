"""Recurrent layers: RNN, GRU, LSTM (ONNX operators of these names; gates in ONNX order)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.arrays import Array, as_type, widened
from infer_runtime.ops import activation
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Step = Callable[[Array, tuple[Array, ...]], tuple[Array, ...]]
    Function = Callable[[Array], Array]

# Names of activation functions -> the function and the names of its alpha and beta.
_ACTIVATIONS: dict[str, tuple[Callable[..., Array], tuple[str, ...]]] = {
    "elu": (activation.Elu, ("alpha",)),
    "hardsigmoid": (activation.HardSigmoid, ("alpha", "beta")),
    "leakyrelu": (activation.LeakyRelu, ("alpha",)),
    "relu": (activation.Relu, ()),
    "sigmoid": (activation.Sigmoid, ()),
    "softplus": (activation.Softplus, ()),
    "softsign": (activation.Softsign, ()),
    "tanh": (np.tanh, ()),
    "thresholdedrelu": (activation.ThresholdedRelu, ("alpha",)),
}


@dataclass(frozen=True)
class Options:
    """The attributes that all three layers share."""

    hidden: int
    direction: str = "forward"
    layout: int = 0
    clip: float | None = None
    names: Sequence[str] = ()
    alphas: Sequence[float] = ()
    betas: Sequence[float] = ()

    @property
    def backward(self) -> tuple[bool, ...]:
        """For each direction, whether it runs backwards."""
        return {"forward": (False,), "reverse": (True,)}.get(self.direction, (False, True))

    def functions(self, defaults: tuple[str, ...]) -> list[list[Function]]:
        """The activation functions of each direction; alphas and betas go to those that take one."""
        names = list(self.names) or list(defaults) * len(self.backward)
        given = {"alpha": list(self.alphas), "beta": list(self.betas)}
        found = [self._clipped(_function(name, given)) for name in names]
        count = len(defaults)
        return [found[i * count : (i + 1) * count] for i in range(len(self.backward))]

    def _clipped(self, function: Function) -> Function:
        limit = self.clip
        return function if limit is None else lambda x: function(np.clip(x, -limit, limit))


def _function(name: str, given: dict[str, list[float]]) -> Function:
    if name.lower() == "affine":
        alpha, beta = (given[k].pop(0) for k in ("alpha", "beta"))
        return lambda x: as_type(alpha * x + beta, x.dtype)
    if name.lower() not in _ACTIVATIONS:
        raise ValueError(f"unknown activation function {name!r}")
    function, parameters = _ACTIVATIONS[name.lower()]
    return partial(function, **{k: given[k].pop(0) for k in parameters if given[k]})


def _options(hidden: int, attributes: dict[str, object]) -> Options:
    return Options(
        hidden,
        attributes.get("direction", "forward"),  # type: ignore[arg-type]
        attributes.get("layout", 0),  # type: ignore[arg-type]
        attributes.get("clip"),  # type: ignore[arg-type]
        attributes.get("activations") or (),  # type: ignore[arg-type]
        attributes.get("activation_alpha") or (),  # type: ignore[arg-type]
        attributes.get("activation_beta") or (),  # type: ignore[arg-type]
    )
