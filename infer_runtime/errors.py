"""Errors a person can act on: one line that names the thing and the fix.

Every expected failure of every storey derives from `InferError` and carries the exit status that
the command line answers with. Anything else that reaches the command line is a bug (status 7).
"""

from __future__ import annotations

from typing import Any, ClassVar


class InferError(Exception):
    """An expected failure; its text is one line for the user, without a traceback."""

    exit_code: ClassVar[int] = 7
    evidence: Any = None  # what was found until then (a report), for callers that show it


class GateError(InferError):
    """A result missed a limit that the user set."""

    exit_code = 1


class UsageError(InferError):
    """A wrong option, path, configuration or data file."""

    exit_code = 2


class FeedError(UsageError):
    """A feed does not fit the model: unknown name, wrong shape, wrong dtype, NaN."""


class ModelError(InferError):
    """A model that cannot be read, or a graph that breaks a rule of the IR."""

    exit_code = 3


class UnsupportedOpError(ModelError):
    """An operator that has no kernel or no converter."""


class KernelError(ModelError):
    """A node that cannot be computed with the values it got."""


class MismatchError(InferError):
    """Two computations that must agree do not."""

    exit_code = 4


class LimitError(InferError):
    """A time or memory limit was reached."""

    exit_code = 5


class LimitIsUp(BaseException):
    """The alarm of a limit of time or memory, raised wherever the program is.

    No Exception: libraries that turn those into errors of their own, or carry on, let it pass.
    Whoever set the limit makes a LimitError of it. Whoever catches it to end in another way
    says so by `heard`: else the alarm rings again, as one that was lost in a callback must.
    """

    heard = False


class InterruptError(InferError):
    """Ctrl-C came, and what was reached until then is written."""

    exit_code = 130


class MissingExtraError(InferError):
    """An optional package is not installed; the text names the pip command."""

    exit_code = 6


def root_cause(error: BaseException) -> str:
    """The first line of the innermost error of a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0] or type(error).__name__
