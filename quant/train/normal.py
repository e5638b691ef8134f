"""Convolutions that train behind batch normalisation, and lose it again before they are written.

A normalised network learns faster and stands larger steps (Ioffe and Szegedy 2015, "Batch
normalization", section 3); of an imported graph it is folded into the weights already.

Given:  y = Conv(x, w, bias), where w may be Signed(weight, scale, share)
Result: y = Normalize(Conv(x, w), scale, shift, mean, variance)

At first scale and shift are deviation and mean of y on some samples: nothing changes but the way
to learn. A Normalize exists while a model is trained and never in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime import Session
from infer_runtime.ops.norm import channel_affine, scaled_channels
from infer_runtime.registry import op
from passes.base import is_op
from passes.graph import (
    add_initializer,
    constant,
    forget_names,
    fresh_name,
    replace_constant,
    shared_reason,
    take_description,
)
from passes.match import argument
from passes.weights import absorb, fold_affine
from quant.train.binary import SIGNED, STORED
from quant.train.extra import import_torch
from quant.train.fake import TRAIN_DOMAIN
from quant.train.module import Trainable
from quant.train.moments import moments_of
from quant.train.roles import NORMALIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Array = np.ndarray[Any, Any]
    Feeds = Sequence[Mapping[str, Array]]

EPSILON = 1e-5  # of the mean variance of a layer: activations have any unit
LEAST_BATCH = 8  # samples whose statistics say something about others


@op(NORMALIZE, domain=TRAIN_DOMAIN)
def normalize(
    x: Array, scale: Array, shift: Array, mean: Array, variance: Array, *, epsilon: float
) -> Array:
    """x [N, C, ...] by statistics that stay, all [C]."""
    return scaled_channels(x, *channel_affine(scale, shift, mean, variance, epsilon))


@op(NORMALIZE, domain=TRAIN_DOMAIN, library="torch")
def normalize_torch(
    x: Any, scale: Any, shift: Any, mean: Any, variance: Any, *, epsilon: float
) -> Any:
    """The same on tensors; where gradients are recorded, by the batch, whose statistics stay."""
    torch = import_torch()
    learning = torch.is_grad_enabled()
    return torch.nn.functional.batch_norm(
        x, mean, variance, scale, shift, training=learning, momentum=1.0, eps=epsilon
    )


class Normalized(Trainable):
    """A model whose convolutions train behind normalisation; `written()` has none.

    Args:
        model: a float graph, which is not changed.
        feeds: samples that tell mean and deviation of each convolution.
        held: as of `Trainable`.

    """

    def __init__(self, model: ir.Model, feeds: Feeds, held: Sequence[str] = ()) -> None:
        learner = model.clone()
        learner.opset_imports[TRAIN_DOMAIN] = 1
        forget_names(learner)
        nodes = [n for n in learner.graph if _is_normalizable(n)]
        axes = {n.outputs[0].name or "": 1 for n in nodes}
        seen = moments_of(Session(model), feeds, axes)
        self.biases: dict[str, str] = {}  # by the name of what a convolution computes
        self.statistics: list[str] = []
        for node in nodes:
            bias, name = _stored(argument(node, 2)), node.outputs[0].name or ""
            self.biases[name] = f"{name}_bias" if bias is None else bias.name or ""
            self.statistics += _normalise(node, *seen[name])
        _forget_unused(learner)
        super().__init__(learner, held=[*held, *self.statistics])

    def settle(self, batches: Iterable[Mapping[str, Array]]) -> None:
        """The statistics that stay become the means over batches, of the parameters of now.

        Means while the parameters move lag behind them, or are of few samples; a sign of one bit
        follows the smallest shift (Wu and Johnson 2021, "Rethinking 'batch' in BatchNorm",
        section 3).
        """
        torch = import_torch()
        kept = [self.parameters[name] for name in self.statistics]
        seen = []
        for feeds in batches:
            with torch.enable_grad():  # as while it learns
                self.run(feeds)
            seen.append([value.clone() for value in kept])
        for value, each in zip(kept, zip(*seen, strict=True), strict=True):
            value.copy_(torch.stack(each).mean(0))

    def written(self) -> ir.Model:
        """The model with what was learnt; the normalisation is in weights and biases."""
        model = super().written()
        forget_names(model)
        for node in [n for n in model.graph if n.op_type == NORMALIZE]:
            inner = node.inputs[0]
            assert inner is not None
            conv = inner.producer()
            assert conv is not None
            name = node.outputs[0].name or ""
            scale, shift, mean, variance = (_values(v) for v in node.inputs[1:])
            epsilon = node.attributes.get_float("epsilon")
            factor, start = channel_affine(scale, shift, mean, variance, epsilon)
            _scale_weight(conv, factor)
            absorb(conv, node)
            bias = add_initializer(model.graph, self.biases[name], start.astype(np.float32))
            conv.resize_inputs(3)
            conv.replace_input_with(2, bias)
        _forget_unused(model)
        if not any(node.domain == TRAIN_DOMAIN for node in model.graph):
            del model.opset_imports[TRAIN_DOMAIN]
        return model


def _is_normalizable(node: ir.Node) -> bool:
    """A convolution with a weight of its own, and a bias that can be replaced."""
    if not is_op(node, "Conv") or node.outputs[0].shape is None:
        return False
    weight, bias = node.inputs[1], argument(node, 2)
    signed = _signed(weight)
    own = weight if signed is None else signed.inputs[0]
    array = constant(own)
    if weight is None or own is None or array is None or array.dtype != np.float32:
        return False
    if shared_reason(weight) or shared_reason(own):
        return False
    return bias is None or constant(_stored(bias)) is not None


def _signed(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == SIGNED else None


def _stored(value: ir.Value | None) -> ir.Value | None:
    """The constant that is kept with some precision, or the value itself."""
    node = None if value is None else value.producer()
    return node.inputs[0] if node is not None and node.op_type == STORED else value


def _scale_weight(conv: ir.Node, factor: Array) -> None:
    """Make the outputs of a convolution without bias so many times as large."""
    signed = _signed(conv.inputs[1])
    if signed is None:
        fold_affine(conv, factor, None)
        return
    weight, scale = _values(signed.inputs[0]), _values(_stored(signed.inputs[1]))
    each = factor.reshape(-1, *(1,) * (weight.ndim - 1))
    replace_constant(signed, 0, (weight * each).astype(np.float32))
    keeper = signed.inputs[1]
    assert keeper is not None
    stored = keeper.producer()
    assert stored is not None
    replace_constant(stored, 0, (scale * abs(each)).astype(np.float32))


def _normalise(conv: ir.Node, mean: Array, deviation: Array) -> tuple[str, str]:
    """Put Normalize behind a convolution; the names of mean and variance."""
    graph, old = conv.graph, conv.outputs[0]
    assert graph is not None
    given = argument(conv, 2)
    bias = constant(_stored(given))
    conv.resize_inputs(2)
    if given is not None and (keeper := given.producer()) is not None and not given.uses():
        graph.remove(keeper, safe=True)
    variance = deviation**2
    epsilon = float(EPSILON * variance.mean()) or EPSILON
    first = {
        "scale": np.sqrt(variance + epsilon),
        "shift": mean,
        "mean": mean if bias is None else mean - bias.reshape(-1),
        "variance": variance,
    }
    constants = [
        add_initializer(graph, f"{old.name}_{part}", array.astype(np.float32))
        for part, array in first.items()
    ]
    node = ir.node(NORMALIZE, [old, *constants], attributes={"epsilon": epsilon})
    node.domain, new = TRAIN_DOMAIN, node.outputs[0]
    graph.insert_after(conv, node)
    take_description(new, old)
    old.replace_all_uses_with(new, replace_graph_outputs=old.is_graph_output())
    node.replace_input_with(0, old)
    name, old.name = old.name, fresh_name(graph, f"{old.name}_plain")
    new.name = name
    return constants[2].name or "", constants[3].name or ""


def _forget_unused(model: ir.Model) -> None:
    """Constants that nobody reads any more give up their names."""
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]


def _values(value: ir.Value | None) -> Array:
    array = constant(value)
    assert array is not None
    return array.astype(np.float64)
