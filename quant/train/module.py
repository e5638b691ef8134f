"""An imported graph as something that torch can train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime import Session
from quant.train.extra import import_torch
from quant.train.roles import TRAINED, parameters_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

    from quant.train.roles import Parameter

    Array = np.ndarray[Any, Any]
    Tensors = dict[str, Any]


class Trainable:
    """The kernels of `infer_runtime` on torch tensors, with parameters in place of weights.

    The model is not changed; `written()` is a copy with the values of the parameters. Everything
    lives on CUDA where torch has it, else on the CPU.

    Args:
        model: a float graph. Statistics of a BatchNormalization stay as they are.
        held: initialisers that are parameters too, but change by other hands than the optimiser's.

    Raises:
        MissingExtraError: torch is not installed.
        UsageError: the model has nothing to train.
        UnsupportedOpError: an operator has no kernel.

    """

    def __init__(self, model: ir.Model, held: Sequence[str] = ()) -> None:
        torch = import_torch()
        self.model = model
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.session = Session(model)
        self.known: dict[str, Parameter] = {
            n: p for n, p in parameters_of(model).items() if p.role in TRAINED
        }
        self.parameters: Tensors = {n: self.tensor(_array(model, n)) for n in self.known}
        for value in self.parameters.values():
            value.requires_grad_()
        self.parameters |= {name: self.tensor(_array(model, name)) for name in held}

    def tensor(self, array: Array) -> Any:
        """A copy of an array as a tensor on the device of this module."""
        torch = import_torch()
        return torch.tensor(array, device=self.device)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> Tensors:
        """The values of these names (by default the outputs), as tensors with gradients.

        Raises:
            UnsupportedOpError: a node on the way to a parameter has no gradient; it is named.

        """
        given = {name: self.tensor(value) for name, value in feeds.items()}
        return self.session.run(given, outputs, parameters=self.parameters)

    def settle(self, batches: Iterable[Mapping[str, Array]]) -> None:
        """Adapt what follows from the parameters and these feeds, before the module is judged."""

    def values(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs as arrays, without gradients."""
        torch = import_torch()
        with torch.no_grad():
            return {name: value.cpu().numpy() for name, value in self.run(feeds).items()}

    def written(self) -> ir.Model:
        """A copy of the model with these parameters, under the same names."""
        copy = self.model.clone()
        for name, value in self.parameters.items():
            array = value.detach().cpu().numpy().copy()
            copy.graph.initializers[name].const_value = ir.tensor(array, name=name)
        return copy


def _array(model: ir.Model, name: str) -> Array:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()
