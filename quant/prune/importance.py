"""How much each channel matters."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from quant.prune.budget import layers_of
from quant.train.module import Trainable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import onnx_ir as ir

    from quant.prune.channels import Channels

    Array = np.ndarray[Any, Any]
    Scores = dict[int, float]
    Batch = tuple[Mapping[str, Array], Array | None]
    Loss = Callable[[Trainable, Mapping[str, Array], Array | None], Any]


def by_magnitude(model: ir.Model, channels: Channels) -> Scores:
    """Sum of the squared weights of a channel, over the mean of its layer."""
    scores: Scores = defaultdict(float)
    for (name, axis), atoms in channels.constants.items():
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        if tensor.numpy().dtype.kind == "f":
            _spread(channels, atoms, _along(tensor.numpy().astype(np.float64) ** 2, axis), scores)
    return _relative(channels, scores)


def by_activation(
    model: ir.Model, channels: Channels, batches: Iterable[Mapping[str, Array]]
) -> Scores:
    """Mean square of the values of a channel, over the mean of its layer."""
    from infer_runtime import Session

    sums: dict[tuple[str, int], Array] = {}
    wanted = {name for name, _ in channels.values}

    def observe(name: str, array: Array) -> None:
        if name not in wanted or array.dtype.kind != "f":
            return
        for axis in range(array.ndim):
            if (name, axis) in channels.values:
                mean = _along(array.astype(np.float64) ** 2, axis) / array.size
                sums[name, axis] = sums.get((name, axis), 0.0) + mean

    session = Session(model)
    for feeds in batches:
        session.run(feeds, observe=observe)
    scores: Scores = defaultdict(float)
    for key, total in sums.items():
        _spread(channels, channels.values[key], total, scores)
    return _relative(channels, scores)


def by_taylor(model: ir.Model, channels: Channels, batches: Sequence[Batch], loss: Loss) -> Scores:
    """Estimated change of the loss without a channel, squared (Molchanov et al. 2019).

    Of each batch the square of the sum of weight times gradient over what makes the channel;
    the mean over batches. Needs no comparison between layers: all is in units of the loss.
    """
    module = Trainable(model)
    scores: Scores = defaultdict(float)
    for feeds, labels in batches:
        for value in module.parameters.values():
            value.grad = None
        loss(module, feeds, labels).backward()
        batch: Scores = defaultdict(float)
        for (name, axis), atoms in channels.constants.items():
            value = module.parameters.get(name)
            if value is None or value.grad is None:
                continue
            change = (value.grad * value).detach().double().cpu().numpy()
            if _makes(channels, name, axis):
                _spread(channels, atoms, _along(change, axis), batch)
        for found, total in batch.items():
            scores[found] += total * total / max(len(batches), 1)
    return dict(scores)


def _makes(channels: Channels, name: str, axis: int) -> bool:
    """Is this the axis of a constant that makes channels: the only one, or the one of outputs?"""
    others = [a for of, a in channels.constants if of == name]
    return len(others) == 1 or (name, axis) in channels.makers


def _along(array: Array, axis: int) -> Array:
    return np.asarray(array.sum(axis=tuple(a for a in range(array.ndim) if a != axis)))


def _spread(channels: Channels, atoms: Array, values: Array, scores: Scores) -> None:
    for found, value in zip(channels.classes(atoms), values, strict=True):
        scores[int(found)] += float(value)


def _relative(channels: Channels, scores: Scores) -> Scores:
    """Layers of large and of small numbers are compared by their own means."""
    result: Scores = {}
    for layer in layers_of(channels, {}):
        mean = np.mean([scores.get(c, 0.0) for c in layer.classes]) or 1.0
        result |= {c: scores.get(c, 0.0) / float(mean) for c in layer.classes}
    return result
