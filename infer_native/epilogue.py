"""What follows a convolution or a product element by element becomes the end of its tiles."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from infer_native.kernels.gemm import Epilogue
from infer_native.program import Layer, Tensor
from infer_native.select import fast_conv, fast_integer, fast_product

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.kernels.elementwise import Step
    from infer_native.program import Array, Program

MAX_OPERANDS = 2
MAX_RATIO = 2**20  # of scales: up to it every sum fits into int32


def fuse_epilogues(program: Program, isa: Isa) -> None:
    """Conv or product -> chain that only it feeds: the chain's steps move into it.

    The other inputs of the chain have the same shape or are single constants; behind a product
    with constant weights also constants with a number for each output.
    """
    users = program.users()
    kept = {t.root for t in program.outputs}
    place = {id(layer): i for i, layer in enumerate(program.layers)}
    result: list[Layer | None] = list(program.layers)
    taken: set[int] = set()
    for index, layer in enumerate(program.layers):
        rows = _is_rows(layer, isa)
        if not (rows or fast_conv(layer, isa)) or layer.output().root in kept:
            continue
        readers = users.get(layer.output().root, [])
        if not readers or any(r is not readers[0] for r in readers) or id(readers[0]) in taken:
            continue
        joint = _joined(layer, readers[0], columns=rows)
        if joint is not None:
            taken.add(id(readers[0]))
            result[index] = None
            result[place[id(readers[0])]] = joint
    program.layers = [layer for layer in result if layer is not None]


def fuse_integer_sums(program: Program, isa: Isa) -> None:
    """Integer Conv -> Add that alone reads it: the Add moves into the convolution."""
    users = program.users()
    producers = program.producers()
    kept = {t.root for t in program.outputs}
    for layer in list(program.layers):
        if (
            layer.op != "_QAdd"
            or max(layer.attrs["sum"].ratio_a, layer.attrs["sum"].ratio_b) > MAX_RATIO
        ):
            continue
        for number in (0, 1):
            joint = layer.input(number)
            conv = producers.get(joint.root)
            if conv is None or conv.op != "_QConv" or len(users[joint.root]) != 1:
                continue
            if joint.view_of is not None or joint in kept or not _dense(conv, isa):
                continue
            attrs = {**conv.attrs, "sum": layer.attrs["sum"], "first": number == 0}
            inputs = [conv.inputs[0], layer.inputs[1 - number]]
            joined = Layer("_QConv", layer.name, inputs, layer.outputs, attrs)
            program.layers[program.layers.index(layer)] = joined
            program.layers.remove(conv)
            break


def _dense(conv: Layer, isa: Isa) -> bool:
    return conv.attrs.get("group", 1) == 1 and fast_integer(conv, isa) is not None


def _is_rows(layer: Layer, isa: Isa) -> bool:
    """Is it a product with constant weights whose outputs fill whole vectors?"""
    if fast_product(layer, isa) is None or layer.output().shape[-1] % isa.lanes:
        return False
    weights = layer.input(1)
    return weights.root.data is not None and len(weights.shape) == 2


def _joined(layer: Layer, chain: Layer, *, columns: bool) -> Layer | None:
    made = layer.output()
    if chain.op != "_Map" or chain.output().shape != made.shape:
        return None
    steps = chain.attrs["steps"]
    if any(not s.vector or s.ctype != "float" for s in steps):
        return None
    names: list[str] = []
    constants: list[float] = []
    tables: list[Array] = []
    operands: list[Tensor] = []
    for tensor in chain.inputs:
        assert tensor is not None
        data = tensor.root.data
        if tensor is made:
            names.append("v")
        elif data is not None and tensor.size == 1:
            names.append(f"VSET(k[{len(constants)}])")
            constants.append(float(data.reshape(())))
        elif columns and data is not None and tensor.size == made.shape[-1] == tensor.shape[-1]:
            names.append(f"LD(z{len(tables)} + @COLUMN)")
            tables.append(data.reshape(-1))
        elif tensor.shape == made.shape and data is None and tensor.root is not made.root:
            names.append(f"LD(q{len(operands)} + @AT)")
            operands.append(tensor)
        else:
            return None
    if len(operands) > MAX_OPERANDS or "v" not in names:
        return None
    epilogue = _epilogue(names, steps, len(operands), tuple(constants), tuple(tables))
    attrs = {**layer.attrs, "epilogue": epilogue, "operands": operands}
    return Layer(layer.op, chain.name, list(layer.inputs), chain.outputs, attrs)


def _epilogue(
    names: list[str], steps: list[Step], operands: int, constants: tuple[float, ...],
    columns: tuple[Array, ...],
) -> Epilogue:  # fmt: skip
    known, lines = list(names), []
    for number, step in enumerate(steps):
        text = step.vector.format(*(known[a] for a in step.arguments))
        lines.append(f"const vf e{number} = {text};")
        known.append(f"e{number}")
    lines.append(f"v = {known[-1]};")
    text = " ".join(lines) + " "
    key = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Epilogue(key, text, tuple(f"q{n}" for n in range(operands)), constants, columns)
