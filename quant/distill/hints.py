"""What a student learns from inside its teacher: pairs of tensors, and losses over them.

- features: the values themselves, through a projection of the channels that is learned beside the
  student and is no part of it (Romero et al. 2015, "FitNets", section 2.2);
- attention: the sum of squares over the channels at each place, as a vector of length 1
  (Zagoruyko and Komodakis 2017, "Paying more attention to attention", section 3.1);
- relation: distances between the samples of a batch and angles between three of them (Park et al.
  2019, "Relational knowledge distillation", sections 3.2.1 and 3.2.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime import Session
from infer_runtime.errors import UsageError
from passes.graph import add_initializer, fresh_name
from quant.train.extra import import_torch
from quant.train.task import relative_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quant.distill.config import DistillConfig
    from quant.distill.match import Tensor

    Array = np.ndarray[Any, Any]

ANGLE_SAMPLES = 64  # of a batch: angles are as many as the cube of them
ANGLES_SHARE = 2.0  # of angles beside distances, as in section 4 there
RIDGE = 1e-3  # of the mean square of a channel: channels that go together have no single solution
SAME = 1e-6  # of the mean square: squared distances below it are the rounding of float32
_TINY = 1e-12


@dataclass(frozen=True)
class Pair:
    """Two tensors; `projected` is the student's as wide as the teacher's."""

    student: Tensor
    teacher: Tensor
    projected: str


@dataclass(frozen=True)
class Hints:
    """The losses over some pairs, beside the one over the outputs."""

    pairs: tuple[Pair, ...]
    features: float
    attention: float
    relation: float

    @property
    def names(self) -> list[str]:
        """What to compute with the student, two values for each pair."""
        return [name for p in self.pairs for name in (p.student.name, p.projected)]

    @property
    def teacher_names(self) -> list[str]:
        """What to compute with the teacher."""
        return [p.teacher.name for p in self.pairs]

    def loss(self, student: Sequence[Any], teacher: Sequence[Any]) -> Any:
        """The weighted mean over the pairs."""
        total = 0.0
        for number, (pair, wanted) in enumerate(zip(self.pairs, teacher, strict=True)):
            got, projected = student[2 * number : 2 * number + 2]
            if self.features:
                error = relative_error(projected.flatten(1), wanted.flatten(1))
                total = total + self.features * error
            if self.attention and pair.teacher.places:
                axes = pair.student.axis, pair.teacher.axis
                total = total + self.attention * attention_loss(got, wanted, *axes)
            if self.relation:
                total = total + self.relation * relation_loss(got, wanted)
        return total / len(self.pairs)


def attention_loss(got: Any, wanted: Any, axis: int = 1, other: int = 1) -> Any:
    """Squared distance of the normalised maps, mean over the samples: 0 to 2."""
    first, second = _map(got, axis), _map(wanted, other)
    return (first - second).square().sum(1).mean()


def _map(x: Any, axis: int) -> Any:
    torch = import_torch()
    return torch.nn.functional.normalize(x.square().sum(axis).flatten(1), dim=1)


def relation_loss(got: Any, wanted: Any) -> Any:
    """Huber distance of the relations between the samples."""
    torch = import_torch()
    huber = torch.nn.functional.smooth_l1_loss
    first, second = _relations(got), _relations(wanted)
    distances, angles = (huber(a, b) for a, b in zip(first, second, strict=True))
    return distances + ANGLES_SHARE * angles


def _relations(x: Any) -> tuple[Any, Any]:
    """Distances [N, N] over their mean, and cosines [N, N, N] of the angle at the first sample.

    From scalar products alone, so that no differences of whole tensors are held.
    """
    torch = import_torch()
    flat = x.flatten(1)
    flat = flat - flat.mean(0).detach()
    products = flat @ flat.T
    norms = products.diagonal()
    same = torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    least = float(norms.mean().detach()) * SAME + _TINY
    square = (norms[:, None] + norms - 2 * products).clamp_min(least).masked_fill(same, 1.0)
    distance = square.sqrt()
    mean = distance.masked_fill(same, 0.0).sum() / max(int((~same).sum()), 1)
    few = slice(min(len(flat), ANGLE_SAMPLES))
    p, n, d = products[few, few], norms[few], distance[few, few]
    cosine = (p[None] - p[:, :, None] - p[:, None] + n[:, None, None]) / (
        d[:, :, None] * d[:, None]
    )
    return (distance / mean.clamp_min(_TINY)).masked_fill(same, 0.0), cosine.clamp(-1.0, 1.0)


def make_hints(
    student: ir.Model,
    teacher: ir.Model,
    pairs: Sequence[tuple[Tensor, Tensor]],
    config: DistillConfig,
    feeds: Mapping[str, Array],
) -> Hints | None:
    """The hints that the options ask for; the student gets projections, in place.

    A projection starts as the best one for `feeds`, in place of a random one that the student
    would follow at first.

    Raises:
        UsageError: a weight without pairs, or pairs that do not fit.

    """
    weights = _weights(config, bool(pairs))
    if not pairs:
        return None
    features, attention, _ = weights
    for mine, other in pairs:
        if (features or attention) and mine.places != other.places:
            raise UsageError(
                f"--hint {mine.name}={other.name}: {list(mine.shape)} and {list(other.shape)} have "
                "not the same places; only --relation-weight can compare them (--feature-weight 0)"
            )
    if attention and not any(other.places for _, other in pairs):
        raise UsageError("--attention-weight: no pair of tensors has places, as images have")
    values = _values(student, [a for a, _ in pairs], feeds)
    wanted = _values(teacher, [b for _, b in pairs], feeds)
    made = []
    for mine, other in pairs:
        arrays = values[mine.name], wanted[other.name]
        name = _projected(student, mine, other, arrays) if features else mine.name
        made.append(Pair(mine, other, name))
    return Hints(tuple(made), *weights)


def _weights(config: DistillConfig, paired: bool) -> tuple[float, float, float]:
    others = config.attention_weight or config.relation_weight
    features = config.feature_weight
    if features is None:
        features = 0.0 if others or not paired else 1.0
    if (features or others) and not paired:
        raise UsageError(
            "--feature-weight, --attention-weight and --relation-weight are for pairs of tensors: "
            "add --match auto or --hint STUDENT=TEACHER"
        )
    if paired and not (features or others):
        raise UsageError("pairs of tensors are given, but every weight of them is 0")
    return features, config.attention_weight, config.relation_weight


def _values(
    model: ir.Model, tensors: Sequence[Tensor], feeds: Mapping[str, Array]
) -> dict[str, Array]:
    return Session(model).run(feeds, [t.name for t in tensors])


def _fitted(got: Array, wanted: Array, axis: int) -> Array:
    """The matrix [wanted channels, channels] of least squared error."""
    rows, targets = (np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]) for x in (got, wanted))
    rows, targets = rows.astype(np.float64), targets.astype(np.float64)
    moments = rows.T @ rows
    ridge = RIDGE * np.trace(moments) / len(moments) + _TINY
    found = np.linalg.solve(moments + ridge * np.eye(len(moments)), rows.T @ targets)
    return np.asarray(found.T, np.float32)


def _projected(model: ir.Model, mine: Tensor, other: Tensor, arrays: tuple[Array, Array]) -> str:
    """The name of the student's tensor with the teacher's channels: a product where they differ."""
    width, wanted = mine.shape[mine.axis], other.shape[other.axis]
    if (width, mine.axis) == (wanted, other.axis):
        return mine.name
    if mine.axis != other.axis:
        raise UsageError(
            f"--hint {mine.name}={other.name}: the channels are on axis {mine.axis} of one and on "
            f"axis {other.axis} of the other"
        )
    weight = _fitted(*arrays, mine.axis)
    graph = model.graph
    value = next(o for n in graph for o in n.outputs if o.name == mine.name)
    if mine.axis == len(mine.shape) - 1:
        op_type, array = "MatMul", weight.T
    else:
        op_type, array = "Conv", weight.reshape(wanted, width, *(1 for _ in mine.shape[2:]))
    name = add_initializer(graph, f"{mine.name}_projection", np.ascontiguousarray(array))
    node = ir.node(op_type, [value, name], name=fresh_name(graph, f"{mine.name}_projected"))
    node.outputs[0].name = node.name
    graph.append(node)
    return node.name or ""


def named_pairs(
    hints: Sequence[str], student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """The tensors that `--hint` names.

    Raises:
        UsageError: a text without '=', or a tensor that is not there; near names are in it.

    """
    pairs = []
    for text in hints:
        mine, equal, other = text.partition("=")
        if not (mine and equal and other):
            raise UsageError(f"--hint {text}: expected STUDENT=TEACHER, the names of two tensors")
        pairs.append(
            (_find(text, mine, "student", student), _find(text, other, "teacher", teacher))
        )
    return pairs


def _find(text: str, name: str, whose: str, tensors: Mapping[str, Tensor]) -> Tensor:
    from difflib import get_close_matches

    if name in tensors:
        return tensors[name]
    near = get_close_matches(name, tensors, n=3, cutoff=0.0)
    raise UsageError(
        f"--hint {text}: the optimised {whose} has no tensor {name!r} of float samples; near: "
        + ", ".join(near)
    )
