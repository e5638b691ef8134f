"""What a model is trained for: the labels, the outputs of its source, or both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from passes.base import is_op
from quant.train.extra import import_torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import onnx_ir as ir

    from quant.distill.hints import Hints
    from quant.train.config import TrainConfig

LABEL_WEIGHT = 0.3  # of labels beside a source to imitate
CLASSES_RANK = 2
_TINY = 1e-8


@dataclass(frozen=True)
class Head:
    """The value that stands for an output in the loss, and whether it scores classes."""

    name: str
    classes: bool


def heads_of(model: ir.Model, *, labelled: bool) -> list[Head]:
    """One head for each output; what a final Softmax reads stands for what it returns.

    The labels are the classes of the first output.
    """
    heads = []
    for number, output in enumerate(model.graph.outputs):
        node = output.producer()
        if is_op(node, "Softmax", "LogSoftmax") and _is_last_axis(node):
            assert node is not None
            assert node.inputs[0] is not None
            heads.append(Head(node.inputs[0].name or "", classes=True))
        else:
            heads.append(Head(output.name or "", classes=labelled and number == 0))
    return heads


def _is_last_axis(node: ir.Node | None) -> bool:
    assert node is not None
    axis = node.attributes.get_int("axis", -1)
    shape = node.outputs[0].shape
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


class Task:
    """The loss of a student against labels and teacher.

    loss = a * cross entropy + (1 - a) * imitation, a = `label_weight`; the imitation of classes is
    T^2 * KL(teacher || student) at temperature T (Hinton et al. 2015), that of other values their
    mean squared error over the teacher's variance.

    Args:
        student: the graph to train.
        teacher: the graph to imitate; its outputs are taken in the student's order.
        config: `label_weight` and `temperature`.
        labelled: has the data labels?
        hints: losses over tensors inside the two, to be added.

    Raises:
        UsageError: labels are asked for and missing, or numbers of outputs differ.

    """

    def __init__(
        self,
        student: ir.Model,
        teacher: ir.Model,
        config: TrainConfig,
        *,
        labelled: bool,
        hints: Hints | None = None,
    ) -> None:
        if config.label_weight and not labelled:
            raise UsageError(
                f"--label-weight {config.label_weight:g}: the data has no labels; add an array "
                "'labels', or leave the option out to imitate the source model"
            )
        default = LABEL_WEIGHT if labelled else 0.0
        self.label_weight = default if config.label_weight is None else config.label_weight
        self.temperature = config.temperature
        self.labelled, self.hints = labelled, hints
        self.heads = heads_of(student, labelled=labelled)
        self.wanted = heads_of(teacher, labelled=labelled)
        if len(self.heads) != len(self.wanted):
            raise UsageError(
                f"the student has {len(self.heads)} outputs, its teacher {len(self.wanted)}"
            )

    @property
    def names(self) -> list[str]:
        """What to compute with the student: its heads, then what hints are about."""
        return [head.name for head in self.heads] + (self.hints.names if self.hints else [])

    @property
    def teacher_names(self) -> list[str]:
        """What to compute with the teacher, likewise; no heads where only labels count."""
        heads = [] if self.label_weight == 1 else [head.name for head in self.wanted]
        return heads + (self.hints.teacher_names if self.hints else [])

    def loss(
        self, student: Sequence[Any], teacher: Sequence[Any], labels: np.ndarray[Any, Any] | None
    ) -> Any:
        """A tensor of one element, of the values of `names` and `teacher_names`."""
        total = self.distance(student, teacher, labels)
        if self.hints is None:
            return total
        hinted = len(teacher) - len(self.hints.teacher_names)
        return total + self.hints.loss(student[len(self.heads) :], teacher[hinted:])

    def distance(
        self, student: Sequence[Any], teacher: Sequence[Any], labels: np.ndarray[Any, Any] | None
    ) -> Any:
        """The loss of the outputs alone, without hints: what epochs are compared by."""
        torch = import_torch()
        total = student[0].new_zeros(())
        if self.label_weight:
            assert labels is not None
            classes = torch.as_tensor(labels, device=student[0].device).long()
            scores = student[0]
            total = total + self.label_weight * torch.nn.functional.cross_entropy(scores, classes)
        if self.label_weight == 1:
            return total
        share = (1 - self.label_weight) / len(self.heads)
        for head, got, wanted in zip(self.heads, student, teacher, strict=False):
            match = self._classes if head.classes else relative_error
            total = total + share * match(got, wanted)
        return total

    def sampled_loss(self, student: Sequence[Any], generator: Any) -> Any:
        """A loss that is random: the mean of its squared gradients is the curvature of `loss`.

        Imitation of itself has no gradient to see by what a model needs. Classes are drawn from
        what the model says (Fisher information, as the curvature of KL), values get random signs.
        """
        torch = import_torch()
        total = student[0].new_zeros(())
        for head, got in zip(self.heads, student, strict=True):
            if head.classes:
                rows = got.reshape(-1, got.shape[-1])
                chances = torch.nn.functional.softmax(rows.detach(), dim=-1).cpu()
                drawn = torch.multinomial(chances, 1, generator=generator)[:, 0].to(got.device)
                error = torch.nn.functional.cross_entropy(rows, drawn, reduction="sum")
                total = total + error / len(rows) ** 0.5
            else:
                signs = 2 * torch.randint(0, 2, got.shape, generator=generator) - 1
                spread = got.detach().var(unbiased=False).clamp_min(_TINY)
                total = total + (signs.to(got) * got).sum() / (got.numel() * spread) ** 0.5
        return total

    def _classes(self, got: Any, wanted: Any) -> Any:
        torch = import_torch()
        t = self.temperature
        soft = torch.nn.functional.softmax(wanted / t, dim=-1)
        log = torch.nn.functional.log_softmax(got / t, dim=-1)
        entropy = torch.special.entr(soft).sum(-1)
        return t * t * (-(soft * log).sum(-1) - entropy).mean()

    def hits(self, student: Sequence[Any], labels: np.ndarray[Any, Any]) -> int:
        """Samples whose best class is their label."""
        return int((student[0].argmax(-1).cpu().numpy() == labels).sum())


def relative_error(got: Any, wanted: Any) -> Any:
    """Mean squared error over the variance of what is wanted."""
    spread = wanted.var(unbiased=False).clamp_min(_TINY)
    return ((got - wanted) ** 2).mean() / spread


def check_heads(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> None:
    """UsageError when the outputs of the two models have not the same shapes."""
    for (name, got), (other, wanted) in zip(student.items(), teacher.items(), strict=True):
        if got.shape != wanted.shape:
            raise UsageError(
                f"output {name!r} of the student has shape {list(got.shape)}, {other!r} of its "
                f"teacher {list(wanted.shape)}"
            )
