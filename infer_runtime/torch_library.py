"""torch as the array library: its functions under standard names, and the way to NumPy and back.

The standard names come from the array-api-compat package; what the standard lacks is added here.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import MissingExtraError, UnsupportedOpError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from infer_runtime.arrays import Array


@cache
def functions() -> ModuleType:
    """The functions of torch under the names of the array API standard.

    Raises:
        MissingExtraError: the package that holds them is not installed.

    """
    try:
        from array_api_compat import torch
    except ImportError as error:
        raise MissingExtraError("torch tensors need: pip install 'infertool[torch]'") from error
    return torch


def to_tensor(value: Any, device: Any = None) -> Any:
    """A NumPy array as a tensor that shares nothing with it; other values as they are."""
    import torch

    if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.kind in "OUS":
        return value
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(device=device, dtype=torch.bfloat16)
    return torch.tensor(array, device=device)


def to_numpy(value: Any) -> Any:
    """A tensor as an array, cut off from its gradient; sequences element by element."""
    import torch

    if isinstance(value, list):
        return [to_numpy(v) for v in value]
    if not isinstance(value, torch.Tensor):
        return value
    plain = value.detach().cpu()
    if plain.dtype == torch.bfloat16:
        return plain.float().numpy().astype(ir.DataType.BFLOAT16.numpy())
    return plain.numpy()


def numpy_dtype(tensor: Any) -> np.dtype[Any]:
    """The NumPy type of a tensor's elements."""
    name = str(tensor.dtype).removeprefix("torch.")
    return np.dtype(ir.DataType.BFLOAT16.numpy() if name == "bfloat16" else name)


def torch_dtype(dtype: np.dtype[Any]) -> Any:
    """The torch type of a NumPy type; None when torch has none of that name."""
    import torch

    return getattr(torch, np.dtype(dtype).name, None)


def through_numpy(compute: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A NumPy kernel for tensors: values only, no gradients.

    Raises (when called):
        UnsupportedOpError: an input asks for a gradient, which would silently be lost.

    """

    def run(*inputs: Any, **subgraphs: Any) -> Any:
        device = _check(inputs, name)
        result = compute(*(to_numpy(x) for x in inputs), **subgraphs)
        return _tensors(result, device)

    return run


def _check(inputs: Sequence[Any], name: str) -> Any:
    device = None
    for x in inputs:
        if getattr(x, "requires_grad", False):
            raise UnsupportedOpError(f"{name} has no gradient: it runs on NumPy only")
        device = getattr(x, "device", device) if not isinstance(x, np.ndarray) else device
    return device


def _tensors(result: Any, device: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_tensors(r, device) for r in result)
    if isinstance(result, list):
        return [_tensors(r, device) for r in result]
    return to_tensor(result, device)


def is_tensor(value: Any) -> bool:
    """Is this a torch tensor? Answers without importing torch."""
    return type(value).__module__.partition(".")[0] == "torch" or _is_subclass(value)


def _is_subclass(value: Any) -> bool:
    return any(base.__module__ == "torch" for base in type(value).__mro__)


def device_of(values: Sequence[Array]) -> Any:
    """Where the first tensor lives."""
    return next((v.device for v in values if is_tensor(v)), None)
