"""Scores that training learns: weights that move away from zero stay.

Sanh, Wolf, Rush: "Movement pruning" (2020), section 4, with hard masks: the gradient of a mask's
score is that of the loss by the masked weight times the weight, and weights that are masked keep
their last value and may come back when the masks are chosen anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from quant.train.extra import import_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from quant.train.module import Trainable

    Array = np.ndarray[Any, Any]


def hold(module: Trainable, masks: Mapping[str, Array]) -> Callable[[], None]:
    """A projection that keeps the masked elements of these weights at zero."""
    torch = import_torch()
    tensors = {n: module.tensor(m) for n, m in masks.items() if n in module.parameters}

    def project() -> None:
        with torch.no_grad():
            for name, mask in tensors.items():
                module.parameters[name].mul_(mask)

    return project


class Movement:
    """Scores and unmasked values of some weights, carried from one training to the next."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.scores: dict[str, Array] = {}
        self._values: dict[str, Array] = {}
        self._sums: dict[str, Any] = {}

    def watch(self, module: Trainable, masks: Mapping[str, Array]) -> Callable[[], None]:
        """A projection that holds the masks and adds up the scores."""
        torch, held = import_torch(), hold(module, masks)
        known = [n for n in self.names if n in module.parameters]
        self._sums = {n: self._first(module, n) for n in known}
        stale = {n: module.tensor(self._values.get(n, _zero(module, n))) for n in known}
        gone = {n: ~module.tensor(masks[n]) for n in known if n in masks}

        def project() -> None:
            held()
            with torch.no_grad():
                for name, total in self._sums.items():
                    value = module.parameters[name]
                    if value.grad is not None:
                        masked = gone.get(name)
                        whole = value if masked is None else value.where(~masked, stale[name])
                        total.sub_(value.grad * whole)

        return project

    def _first(self, module: Trainable, name: str) -> Any:
        return module.tensor(self.scores.get(name, _zero(module, name)))

    def finish(self, module: Trainable, masks: Mapping[str, Array]) -> ir.Model:
        """The trained model with the last values of all weights, masked or not."""
        model = module.written()
        for name, total in self._sums.items():
            self.scores[name] = total.cpu().numpy()
            value = module.parameters[name].detach().cpu().numpy()
            if name in masks:
                value = np.where(masks[name], value, self._values[name])
            self._values[name] = value.copy()
            initializer = model.graph.initializers[name]
            initializer.const_value = ir.tensor(self._values[name], name=name)
        return model


def _zero(module: Trainable, name: str) -> Array:
    return np.zeros(tuple(module.parameters[name].shape), np.float32)
