"""`Session`: load a model once, run it many times, look at any value."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.arrays import is_numpy, value_limit
from infer_runtime.domains import domain_of
from infer_runtime.errors import FeedError, ModelError, UsageError, root_cause
from infer_runtime.functions import check_functions, with_kernels
from infer_runtime.mapped import map_external
from infer_runtime.plan import Plan, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from infer_runtime.arrays import Array
    from infer_runtime.plan import Step
    from infer_runtime.program import After

    Observer = Callable[[str, Array], None]

# What stands for the dtype of a sequence, an optional value or an untyped input.
_NO_TENSOR = np.dtype("V")


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape and dtype of an input or output; a dimension that is no int is dynamic.

    `domain` is the range [low, high) of an input that is an index, a length or a mask.
    """

    name: str
    shape: tuple[int | str | None, ...] | None
    dtype: np.dtype[Any]
    domain: tuple[int, int] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class NodeTime:
    """One node of the last profiled run: milliseconds, and the bytes of its outputs."""

    node: str
    op: str
    ms: float
    bytes: int


class Session:
    """A model ready to run, on NumPy arrays or on torch tensors.

    Args:
        model: a file or an `onnx_ir.Model`; the model is not changed.
        profile: time every node of every run; `profile()` then tells.
        target_cpu: compute products of 8-bit integers as this processor does: "avx2" for the
            16-bit saturation of x86 without VNNI. None for exact arithmetic.
        memory_limit: bytes that one value may take; by default a quarter of the machine's memory.

    Raises:
        ModelError: the file cannot be read, or the graph is not valid.
        UnsupportedOpError: operators without a kernel, all of them in one error.
        UsageError: an unknown target_cpu.

    """

    def __init__(
        self,
        model: str | os.PathLike[str] | ir.Model,
        *,
        profile: bool = False,
        target_cpu: str | None = None,
        memory_limit: int | None = None,
    ) -> None:
        is_file = isinstance(model, (str, os.PathLike))
        loaded = load_graph(model) if isinstance(model, (str, os.PathLike)) else model
        inlined = _inlined(loaded)
        graph = inlined.graph
        self._graph, self._opsets, self._target_cpu = graph, inlined.opset_imports, target_cpu
        self._memory_limit = memory_limit
        with self._limited():
            self._plan = Plan(graph, self._setting())
        if is_file:
            _share(graph, self._plan)
        # Tensors, and parameters in place of initialisers, need plans of their own.
        self._other_plans: dict[Any, Plan] = {}
        given = tuple(tensor_info(v) for v in graph.inputs)
        self.inputs = tuple(i for i in given if i.name not in graph.initializers)
        self.outputs = tuple(tensor_info(v) for v in graph.outputs)
        # Inputs that are initialisers too have a default, which a feed may replace.
        self._feedable = {i.name: i for i in given}
        self._profiles = profile
        self._times: list[NodeTime] = []

    def run(
        self,
        feeds: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        *,
        observe: Observer | None = None,
        parameters: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """Compute outputs, or any named values of the main graph.

        With torch tensors among the feeds or parameters everything is computed by torch, on their
        device, and gradients flow from the outputs to the tensors that ask for them.

        Args:
            feeds: an array for each input.
            outputs: names to return instead of the model's outputs.
            observe: called with the name and the array of each value of the main graph as it
                appears, inputs first, also of those that no output needs; the array must not be
                changed. Initialisers are not shown, what is computed from them alone is.
            parameters: arrays to use in place of initialisers, of the same shape.

        Raises:
            FeedError: a name, shape or dtype does not fit the model.
            KernelError: a node cannot be computed.
            LimitError: a value does not fit into the memory.

        """
        values = {**self._checked(feeds), **(parameters or {})}
        plan = self._plan_for(values, frozenset(parameters or ()))
        names = [o.name for o in self.outputs] if outputs is None else list(outputs)
        if unknown := [n for n in names if n not in plan.known]:
            raise FeedError(f"the model has no value named {unknown[0]!r}")
        if observe is not None:
            for name, value in values.items():
                observe(name, value)
            for name in plan.folded:
                observe(name, plan.constants[name])
        with np.errstate(all="ignore"), self._limited():
            return plan.run(values, names, self._after(observe))

    def run_batches(self, feeds: Mapping[str, Array], size: int) -> dict[str, Array]:
        """Run samples by batches of at most `size`; feeds and outputs have them on axis 0.

        Raises:
            FeedError: the feeds hold no samples, or not the same number of them.

        """
        counts = {len(v) for v in feeds.values()}
        if len(counts) != 1 or not (count := counts.pop()) or size < 1:
            raise FeedError("batches need feeds with the same number of samples, at least one")
        rows = [
            self.run({name: v[i : i + size] for name, v in feeds.items()})
            for i in range(0, count, size)
        ]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def profile(self) -> list[NodeTime]:
        """Every node of the last run, in order, of a session made with `profile=True`.

        Raises:
            UsageError: the session does not profile.

        """
        if not self._profiles:
            raise UsageError("profile() needs Session(model, profile=True) and a run")
        return list(self._times)

    def memory_bound(self, feeds: Mapping[str, Array]) -> int:
        """Bytes that no run can do without: the weights and the largest set of live values."""
        with np.errstate(all="ignore"):
            return self._plan.memory_bound(self._checked(feeds), [o.name for o in self.outputs])

    @contextmanager
    def _limited(self) -> Iterator[None]:
        token = value_limit.set(self._memory_limit)
        try:
            yield
        finally:
            value_limit.reset(token)

    def _setting(self, **library: Any) -> Setting:
        if self._target_cpu is None:
            return Setting(self._opsets, **library)
        from infer_runtime.target_cpu import binder

        return Setting(self._opsets, **{**library, "bind": binder(self._target_cpu)})

    def _plan_for(self, values: Mapping[str, Any], parameters: frozenset[str]) -> Plan:
        """The plan for the library of these values, with parameters as inputs."""
        tensors = [v for v in values.values() if not is_numpy(v) and not isinstance(v, list)]
        if not tensors and not parameters:
            return self._plan
        if unknown := sorted(parameters - self._graph.initializers.keys()):
            raise FeedError(f"the model has no initialiser named {unknown[0]!r}")
        library = _tensor_library(tensors)
        key = (parameters, str(library.pop("device", None)), bool(library))
        if key not in self._other_plans:
            setting = self._setting(parameters=parameters, **library)
            self._other_plans[key] = Plan(self._graph, setting)
        return self._other_plans[key]

    def _after(self, observe: Observer | None) -> After | None:
        if observe is None and not self._profiles:
            return None
        self._times = []  # a profile shows all nodes, as the model has them

        def after(step: Step, results: Sequence[Any], seconds: float) -> None:
            if self._profiles:
                size = sum(getattr(r, "nbytes", 0) for r in results)
                self._times.append(NodeTime(step.name, step.op, 1e3 * seconds, size))
            if observe is not None:
                for name, result in zip(step.outputs, results, strict=True):
                    if name:
                        observe(name, result)

        return after

    def _checked(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        names = [i.name for i in self.inputs]
        if missing := [n for n in names if n not in feeds]:
            raise FeedError(f"input {missing[0]!r} has no feed; the inputs are {names}")
        if unknown := [n for n in feeds if n not in self._feedable]:
            raise FeedError(f"no input named {unknown[0]!r}; the inputs are {names}")
        return {name: checked_feed(self._feedable[name], v) for name, v in feeds.items()}


def _tensor_library(values: Sequence[Any]) -> dict[str, Any]:
    """What a plan for tensors is made with; nothing for NumPy."""
    from infer_runtime.evaluate import bind
    from infer_runtime.torch_library import is_tensor, to_tensor

    if not any(is_tensor(v) for v in values):
        return {}
    device = next(v.device for v in values if is_tensor(v))
    to_here = partial(to_tensor, device=device)
    return {"bind": partial(bind, library="torch"), "settled": to_here, "device": device}


def _share(graph: ir.Graph, plan: Plan) -> None:
    """Let the graph hold the arrays of the plan instead of the bytes of the file."""
    for name, value in graph.initializers.items():
        array = plan.constants[name]
        given = value.const_value
        if given is not None and isinstance(array, np.ndarray) and array.dtype.kind != "O":
            value.const_value = ir.tensor(array, dtype=given.dtype, name=name)


def checked_feed(info: TensorInfo, value: Array) -> Array:
    """The value as an array that fits the input; sequences and optionals stay as they are.

    Raises:
        FeedError: another dtype, rank or fixed dimension.

    """
    if info.dtype == _NO_TENSOR:
        return value
    array, dtype = _array_and_dtype(value)
    if dtype.kind in "OUS" and info.dtype.kind == "O":
        array = _text(array)
    elif dtype != info.dtype:
        raise FeedError(f"input {info.name!r}: dtype {dtype}, expected {info.dtype}")
    if info.shape is not None and not _fits(tuple(array.shape), info.shape):
        expected = ", ".join("?" if d is None else str(d) for d in info.shape)
        raise FeedError(f"input {info.name!r}: shape {list(array.shape)}, expected [{expected}]")
    return array


def _text(array: Array) -> Array:
    """Strings as objects, which do not cut long ones off."""
    flat = [v.decode() if isinstance(v, bytes) else str(v) for v in array.reshape(-1)]
    return np.array(flat, object).reshape(array.shape)


def _array_and_dtype(value: Any) -> tuple[Array, np.dtype[Any]]:
    if is_numpy(value) or not hasattr(value, "device"):
        array = np.asarray(value)
        return array, array.dtype
    from infer_runtime.torch_library import numpy_dtype

    return value, numpy_dtype(value)


def _fits(shape: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        not isinstance(want, int) or n == want for n, want in zip(shape, wanted, strict=True)
    )


def load_graph(path: str | os.PathLike[str]) -> ir.Model:
    """Read an ONNX file; ModelError when it is none."""
    try:
        # Only with a folder in its path does onnx_ir check where external data lies.
        model = ir.load(Path(path).absolute())
        map_external(model)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except Exception as error:
        raise ModelError(f"{Path(path)}: not a readable ONNX model: {root_cause(error)}") from error
    return model


def _inlined(model: ir.Model) -> ir.Model:
    """Model-local functions become part of the graph, on a copy; not those with a kernel."""
    if not model.functions:
        return model
    from onnx_ir.passes.common import InlinePass

    check_functions(model)
    kept = with_kernels(model)
    try:
        return InlinePass(lambda f: f.identifier() not in kept)(model.clone()).model
    except Exception as error:
        raise ModelError(f"the model's functions cannot be inlined: {root_cause(error)}") from error


def tensor_info(value: ir.Value) -> TensorInfo:
    """Name, shape and dtype of a value of a graph."""
    if not isinstance(value.type, ir.TensorType):
        return TensorInfo(value.name or "", None, _NO_TENSOR)
    dtype = np.dtype(value.type.dtype.numpy())
    return TensorInfo(value.name or "", _shape(value.shape), dtype, domain_of(value))


def _shape(shape: ir.Shape | None) -> tuple[int | str | None, ...] | None:
    if shape is None:
        return None
    # Some exporters write -1 where a dimension is dynamic.
    return tuple((None if d < 0 else d) if isinstance(d, int) else d.value for d in shape)
