"""The C source of a model: functions, the calls in order, and what the caller must know."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infer_native import binarised, choices, fuse, integer, layout, moves, signals, tables
from infer_native.cwriter import indent
from infer_native.isa import at_precision, find_isa, vectors
from infer_native.kernels import (
    Code,
    blocked_map,
    blocked_pool,
    elementwise,
    find_kernel,
    gather,
    halves,
    plain_binary,
    quantized,
    spread,
    vnni_bytes,
    vnni_matmul,
    vnni_ops,
    wide_integer,
)
from infer_native.lower import lower
from infer_native.memory import Arena, plan_arena
from infer_native.pack import Weights
from infer_native.prepare import prepare
from infer_native.program import Layer, Tensor
from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from infer_native.choices import Pick
    from infer_native.isa import Isa
    from infer_native.program import Program
    from infer_native.tuning import Tuning

ERRORS = {"NULL": 1, "ALIGNMENT": 2}


@dataclass(frozen=True)
class Port:
    """An input or output of the emitted function."""

    name: str
    symbol: str
    shape: tuple[int, ...]
    dtype: str
    ctype: str


@dataclass(frozen=True)
class Made:
    """A layer that had a choice: its place in the order of calls, its name, what it got."""

    call: int
    layer: str
    key: str
    choice: str


@dataclass(frozen=True)
class Emitted:
    """A model in C: the source, the weights, and the memory that it needs."""

    source: str
    weights: bytes
    isa: Isa
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    arena_bytes: int
    arena_bound: int
    operators: tuple[str, ...] = field(default=())
    choices: tuple[Made, ...] = field(default=())

    @property
    def key(self) -> str:
        """A digest of everything that the library is made of."""
        digest = hashlib.sha256(self.source.encode())
        digest.update(self.weights)
        digest.update(" ".join(self.isa.flags).encode())
        return digest.hexdigest()


def emit_model(
    model: ir.Model, shapes: Mapping[str, Sequence[int]] | None = None, isa: str = "auto",
    tuning: Tuning | None = None, precision: str = "fp32",
) -> Emitted:  # fmt: skip
    """Lower a model for fixed shapes and write its source.

    Args:
        model: of opset 13 or newer; it is not changed.
        shapes: sizes of inputs with dynamic dimensions.
        isa: a name of `infer_native.isa.ISAS`, or 'auto' for the best one of this machine.
        tuning: measured choices for some of the layers; the cost model decides the others.
        precision: 'fp32', or 'bf16': products with constant weights round their factors.

    Raises:
        UnsupportedOpError: operators or types without a kernel.
        ModelError: a shape that depends on data, or an old opset.
        UsageError: a shape is missing or does not fit; an unknown isa; a tuning of other layers;
            a precision that the isa has not.

    """
    target = at_precision(find_isa(isa), precision)
    prepared = prepare(model, shapes)
    return emit_prepared(prepared, target, None if tuning is None else tuning.pick)


def emit_prepared(
    prepared: ir.Model, target: Isa, pick: Pick | None = None, *, timed: bool = False
) -> Emitted:
    """As `emit_model`, of what `prepare` made, which stays as it is.

    Args:
        prepared: with fixed shapes.
        target: the instructions.
        pick: the choice of a layer with several; without it the cost model decides.
        timed: also write the nanoseconds of each call to the array `model_ns`.

    """
    program = lower(prepared)
    own_outputs(program)
    binarised.fuse_binary(program)
    moves.fuse_moves(program)
    tables.fuse_tables(program)
    integer.fuse_integer(program)
    fuse.fuse_maps(program)
    if target.lanes:
        signals.lift(program)
    if target.bf16:
        halves.shrink_tables(program)
    if target.lanes and pick is not None:
        choices.mark(program, target, pick)
    layout.assign(program, target)
    fuse.remove_unused(program)
    return _Writer(program, target, timed=timed).write()


def own_outputs(program: Program) -> None:
    """Every output gets memory of its own: views of inputs, constants and others are copied."""
    taken: set[Tensor] = {t.root for t in program.inputs}
    for number, tensor in enumerate(program.outputs):
        root = tensor.root
        if root.data is None and root not in taken:
            taken.add(root)
            continue
        copy = Tensor(f"{tensor.name}_copy", tensor.shape, tensor.dtype)
        program.layers.append(Layer("_Copy", tensor.name, [tensor], [copy]))
        program.outputs[number] = copy
        taken.add(copy)


class _Writer:
    """Collects functions, calls and weights."""

    def __init__(self, program: Program, isa: Isa, *, timed: bool = False) -> None:
        self._program, self._isa, self._timed = program, isa, timed
        self._weights = Weights()
        self._functions: dict[str, str] = {}
        self._helpers: dict[str, str] = {}
        self._inputs = _ports(program.inputs, [t.name for t in program.inputs], "in")
        self._outputs = _ports(program.outputs, program.names, "out")
        roots = [t.root for t in (*program.inputs, *program.outputs)]
        symbols = [p.symbol for p in (*self._inputs, *self._outputs)]
        self._external = dict(zip(roots, symbols, strict=True))

    def write(self) -> Emitted:
        codes = [self._code(layer) for layer in self._program.layers]
        arena = plan_arena(self._program, set(self._external), [c.scratch for c in codes])
        calls = [
            self._call(number, layer, code, arena)
            for number, (layer, code) in enumerate(zip(self._program.layers, codes, strict=True))
        ]
        source = self._source(calls, arena)
        if self._isa.bf16 and "BDOT(" not in source:
            raise UsageError(
                "--precision bf16: no layer of this model multiplies by constant float32 weights"
            )
        return Emitted(
            source,
            self._weights.data(),
            self._isa,
            self._inputs,
            self._outputs,
            arena.size,
            arena.bound,
            tuple(layer.op for layer in self._program.layers),
            tuple(
                Made(number, layer.name, layer.attrs["key"], str(layer.attrs["choice"]))
                for number, layer in enumerate(self._program.layers)
                if "key" in layer.attrs
            ),
        )

    def _code(self, layer: Layer) -> Code:
        found = layer.attrs.get("code")
        if found is not None:
            code: Code = found(layer)
            return code
        kernel = find_kernel(layer.op)
        assert kernel is not None
        return kernel(layer)

    def _call(self, number: int, layer: Layer, code: Code, arena: Arena) -> str:
        """Only what the body mentions becomes a parameter."""
        parameters, arguments = [], []
        for name, tensor, const in _operands(layer):
            if re.search(rf"\b{name}\b", code.body):
                qualifier = "const " if const else ""
                parameters.append(f"{qualifier}{tensor.ctype} *restrict {name}")
                arguments.append(self._place(tensor, arena, const=const))
        for index, table in enumerate(code.tables):
            t = Tensor("", table.shape, table.dtype, table)
            parameters.append(f"const {t.ctype} *restrict t{index}")
            arguments.append(self._place(t, arena, const=True))
        if code.scratch:
            parameters.append("char *restrict s")
            arguments.append(f"a + {arena.scratch[number]}")
        self._helpers.update(code.helpers)
        text = f"({', '.join(parameters) or 'void'}) {{\n{indent(code.body)}\n}}"
        name = self._functions.setdefault(text, f"f{len(self._functions)}")
        return f"{name}({', '.join(arguments)});  /* {_comment(layer)} */"

    def _place(self, tensor: Tensor, arena: Arena, *, const: bool) -> str:
        root, cast = tensor.root, f"{'const ' if const else ''}{tensor.ctype} *"
        if root.data is not None:
            return f"({cast})(w + {self._weights.add(root.data)})"
        if root in self._external:
            symbol = self._external[root]
            return symbol if tensor.dtype == root.dtype else f"({cast}){symbol}"
        return f"({cast})(a + {arena.offsets[root]})"

    def _source(self, calls: list[str], arena: Arena) -> str:
        clock = _CLOCK.replace("@N", str(max(len(calls), 1))) if self._timed else ""
        body = "\n".join(_clocked(calls) if self._timed else calls)
        functions = "\n\n".join(f"static void {n}{text}" for text, n in self._functions.items())
        helpers = "\n".join(self._helpers.values())
        used = _apart(f"{helpers}\n{functions}")
        return (
            f'#include "model.h"\n\n#include <math.h>\n#include <string.h>\n\n{clock}'
            f"{vectors.prelude(self._isa)}\n"
            f"{vectors.integers(self._isa) if 'WDOT(' in used or 'q_v' in used else ''}"
            f"{vectors.turning(self._isa) if 'nx_turn(' in used else ''}"
            f"{vectors.levels(self._isa) if 'NXL(' in used else ''}"
            f"{vectors.words() if 'vn w0' in used else ''}"
            f"{vectors.bits(self._isa) if 'POPCOUNT(' in used or 'nx_signs(' in used else ''}"
            f"{halves.PRELUDE if 'BDOT(' in used else ''}"
            f"{_prelude(used)}\n{used}\n\n"
            f"size_t model_arena_bytes(void) {{ return {arena.size}; }}\n"
            f"size_t model_weights_bytes(void) {{ return {self._weights.size}; }}\n\n"
            f"{self._signature()} {{\n{indent(self._guard())}\n"
            "  char *a = arena;\n  const char *w = weights;\n  (void)a;\n  (void)w;\n"
            f"{indent(body)}\n  return MODEL_OK;\n}}\n{vectors.closing(self._isa)}"
        )

    def _signature(self) -> str:
        return signature(self._inputs, self._outputs)

    def _guard(self) -> str:
        pointers = ["arena", "weights", *(p.symbol for p in (*self._inputs, *self._outputs))]
        tests = " || ".join(f"!{p}" for p in pointers)
        return (
            f"if ({tests}) return MODEL_ERROR_NULL;\n"
            "if ((uintptr_t)arena % 64 || (uintptr_t)weights % 64) return MODEL_ERROR_ALIGNMENT;"
        )


_CLOCK = """#include <time.h>
uint64_t model_ns[@N];
static uint64_t nx_now(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}
"""


def _clocked(calls: Sequence[str]) -> list[str]:
    """Each call with a look at the clock behind it."""
    look = "now = nx_now();\nmodel_ns[{}] = now - last;\nlast = now;"
    timed = [f"{call}\n{look.format(number)}" for number, call in enumerate(calls)]
    return ["uint64_t last = nx_now(), now;", *timed] if calls else []


def signature(inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    """The declaration of the function that runs the model."""
    parts = ["void *arena", "const void *weights"]
    parts += [f"const {p.ctype} *{p.symbol}" for p in inputs]
    parts += [f"{p.ctype} *{p.symbol}" for p in outputs]
    return f"int model_run({', '.join(parts)})"


def _apart(functions: str) -> str:
    """Each stays a function: all of them in one would take compilers twice the time."""
    return re.sub("^static void ", "static __attribute__((noinline)) void ", functions, flags=re.M)


def _prelude(used: str) -> str:
    """Of the small functions those that the source calls, with what they call in turn."""
    known = {
        **elementwise.helpers(), **gather.helpers(), **quantized.helpers(), **vnni_ops.helpers(),
        **vnni_matmul.helpers(), **vnni_bytes.helpers(), **plain_binary.helpers(),
        **spread.helpers(), **halves.helpers(), **blocked_map.helpers(), **blocked_pool.helpers(),
        **wide_integer.helpers(),
    }  # fmt: skip
    kept: list[str] = []
    for name, text in reversed(known.items()):
        if re.search(rf"\b{name}\(", used + "\n".join(kept)):
            kept.insert(0, text)
    return "\n".join(kept)


def _operands(layer: Layer) -> Iterator[tuple[str, Tensor, bool]]:
    for index, tensor in enumerate(layer.inputs):
        if tensor is not None:
            yield f"x{index}", tensor, True
    for index, tensor in enumerate(layer.outputs):
        if tensor is not None:
            yield f"y{index}", tensor, False


def _ports(tensors: Sequence[Tensor], names: Sequence[str], prefix: str) -> tuple[Port, ...]:
    """The name in C is the model's, as far as C allows it, and no word twice."""
    return tuple(
        Port(
            name,
            f"{prefix}{i}_{re.sub(r'[^0-9A-Za-z_]', '_', name)}",
            t.shape,
            t.dtype.name,
            t.ctype,
        )
        for i, (t, name) in enumerate(zip(tensors, names, strict=True))
    )


def _comment(layer: Layer) -> str:
    """What the call computes; a name must not end the comment."""
    name = re.sub(r"[^\w./: -]", "_", layer.name).replace("*/", "_").replace("/*", "_")
    return f"{layer.op} {name}".strip()
