"""onnxsim as one optional stage of the exact pipeline, in a child process with limits."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from infer_runtime.errors import ModelError
from infer_tool.importers.normalise import normalise
from infer_tool.importers.onnx import read
from infer_tool.reason import LENGTH
from passes.base import EXTERNAL, Outcome, Pass, Refusal
from passes.facts import facts, opset
from passes.graph import MAX_GROWTH_BYTES

if TYPE_CHECKING:
    from passes.facts import Facts

# The child parses the file, holds the graph again in C++ and writes it: weights several times.
LARGEST_BYTES = 500_000_000
# -P: its own folder, with this module in it, must not hide the package onnxsim.
CHILD = (sys.executable, "-P", str(Path(__file__).with_name("onnxsim_child.py")))


@dataclass(frozen=True)
class OnnxSim(Pass):
    """What onnxsim finds beyond our own passes.

    Given:  a graph that the other passes have done with
    Result: onnxsim's graph, when it is smaller and of the same interface, which it gets back
            where onnxsim only described it in other words; the pipeline compares the outputs
    """

    name: ClassVar[str] = "onnxsim"
    level: ClassVar[int] = EXTERNAL
    seconds: float = 120.0
    memory: int = 8 * 10**9
    command: tuple[str, ...] = CHILD

    def apply(self, model: ir.Model) -> Outcome:
        """Write, run, read, compare; whatever goes wrong in the child is a refusal."""
        before = facts(model, with_macs=False)
        if before.weight_bytes > LARGEST_BYTES:
            return _refused(f"the model has {before.weight_bytes} bytes of weights")
        if model.functions:
            return _refused("the model holds functions")
        with TemporaryDirectory(prefix="infertool-") as folder:
            source, target = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
            ir.save(_inline(model), source)
            if reason := self._run(source, target):
                return _refused(reason)
            try:
                result = normalise(_in_memory(read(target)), "the result of onnxsim")
            except ModelError as error:
                return _refused(str(error))
        if reason := _unfit(model, result, before):
            return _refused(reason)
        _take(model, result)
        return Outcome(max(1, before.nodes - facts(model, with_macs=False).nodes))

    def _run(self, source: Path, target: Path) -> str | None:
        """Why the child left no file."""
        command = [*self.command, str(source), str(target), str(self.memory)]
        try:
            child = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=self.seconds,
                check=False, cwd=source.parent,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"it did not end within {self.seconds:g} s"
        if child.returncode < 0:
            return f"it crashed: signal {-child.returncode}"
        if child.returncode or not target.is_file():
            lines = child.stderr.strip().splitlines() or [f"status {child.returncode}"]
            return f"it failed: {lines[-1].strip()[:LENGTH]}"
        return None


def _refused(reason: str) -> Outcome:
    return Outcome(0, (Refusal("-", "onnxsim", reason),))


def _inline(model: ir.Model) -> ir.Model:
    """The file must stand alone: external weights lie in other folders."""
    return _in_memory(model.clone())


def _in_memory(model: ir.Model) -> ir.Model:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)
    return model


def _unfit(model: ir.Model, result: ir.Model, before: Facts) -> str | None:
    """Why the result cannot take the model's place."""
    if opset(result) != opset(model):
        return f"it changed the opset from {opset(model)} to {opset(result)}"
    for side in ("inputs", "outputs"):
        ours, theirs = getattr(model.graph, side), getattr(result.graph, side)
        if [(v.name, v.dtype) for v in ours] != [(v.name, v.dtype) for v in theirs]:
            return f"it changed the names, order or types of the {side}"
    after = facts(result, with_macs=False)
    if after.nodes > before.nodes or after.weight_bytes > before.weight_bytes + MAX_GROWTH_BYTES:
        return f"its result is larger: {_size(before)} became {_size(after)}"
    if after.nodes == before.nodes and after.weight_bytes >= before.weight_bytes:
        return f"its result is not smaller: {_size(after)}"
    return None


def _size(found: Facts) -> str:
    return f"{found.nodes} nodes and {found.weight_bytes} bytes"


def _take(model: ir.Model, result: ir.Model) -> None:
    """Move the graph over; inputs and outputs keep the shapes that the source declares."""
    old, new = model.graph, result.graph
    for ours, theirs in zip((*old.inputs, *old.outputs), (*new.inputs, *new.outputs), strict=True):
        theirs.shape, theirs.type = ours.shape, ours.type
    new.name = old.name
    model.graph = new
