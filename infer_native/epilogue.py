"""What follows a convolution or a product element by element becomes the end of its tiles."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from infer_native.kernels.binary import fits, rounded
from infer_native.kernels.gemm import Epilogue
from infer_native.kernels.spread import levels_of_layer
from infer_native.program import Layer, Tensor
from infer_native.select import fast_conv, fast_integer, fast_product

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.kernels.elementwise import Step
    from infer_native.program import Array, Program

MAX_OPERANDS, MAX_CHANNELS = 2, 4
MAX_RATIO = 2**20  # of scales: up to it every sum fits into int32


def fuse_epilogues(program: Program, isa: Isa) -> None:
    """Conv or product -> chain that only it feeds: the chain's steps move into it.

    The other inputs of the chain are values of the same shape, constants of one number, or of one
    for each output.
    """
    users = program.users()
    kept = {t.root for t in program.outputs}
    place = {id(layer): i for i, layer in enumerate(program.layers)}
    result: list[Layer | None] = list(program.layers)
    taken: set[int] = set()
    for index, layer in enumerate(program.layers):
        binary, rows = layer.op == "_BConv" and fits(layer, isa), _is_rows(layer, isa)
        if not (binary or rows or fast_conv(layer, isa)) or layer.output().root in kept:
            continue
        readers = users.get(layer.output().root, [])
        if not readers or any(r is not readers[0] for r in readers) or id(readers[0]) in taken:
            continue
        joint = _joined(layer, readers[0], rows=rows)
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


def fuse_integer_slopes(program: Program, isa: Isa) -> None:
    """Integer Conv -> two lines that alone read it: they follow its rounding or its sum."""
    users, producers = program.users(), program.producers()
    kept = {t.root for t in program.outputs}
    for layer in list(program.layers):
        slopes = layer.attrs.get("slopes")
        joint = layer.optional(0)
        conv = None if joint is None or slopes is None else producers.get(joint)
        if joint is None or conv is None or conv.op != "_QConv" or len(users[joint]) != 1:
            continue
        if joint in kept or "slopes" in conv.attrs or fast_integer(conv, isa) is None:
            continue
        attrs = {**conv.attrs, "slopes": slopes}
        joined = Layer("_QConv", layer.name, conv.inputs, layer.outputs, attrs)
        program.layers[program.layers.index(layer)] = joined
        program.layers.remove(conv)


def _dense(conv: Layer, isa: Isa) -> bool:
    return conv.attrs.get("group", 1) == 1 and fast_integer(conv, isa) is not None


def _is_rows(layer: Layer, isa: Isa) -> bool:
    """Is it a product with constant weights whose outputs fill whole vectors?"""
    if fast_product(layer, isa) is None or layer.output().shape[-1] % isa.lanes:
        return False
    weights = layer.input(1)
    if weights.root.data is None or len(weights.shape) != 2:
        return False
    return isa.bf16 or levels_of_layer(layer) is None


def _joined(layer: Layer, chain: Layer, *, rows: bool) -> Layer | None:
    made, binary = layer.output(), layer.op == "_BConv"
    if chain.op != "_Map" or chain.output().shape != made.shape:
        return None
    steps = chain.attrs["steps"]
    if any(not s.vector or s.ctype != "float" for s in steps):
        return None
    names: list[str] = []
    constants: list[float] = []
    operands: list[Tensor] = []
    channels: list[Array] = []
    for tensor in chain.inputs:
        assert tensor is not None
        data = tensor.root.data
        if tensor is made:
            names.append("v")
        elif data is not None and tensor.size == 1:
            names.append(f"VSET(k[{len(constants)}])")
            constants.append(float(data.reshape(())))
        elif data is not None and _is_for_each(tensor, made, rows=rows):
            names.append(f"LD(h + (@COLUMN * @CHANNELS + {len(channels)}) * VL)")
            channels.append(data)
        elif tensor.shape == made.shape and data is None and tensor.root is not made.root:
            names.append(f"LD(q{len(operands)} + @AT)")
            operands.append(tensor)
        else:
            return None
    if len(operands) > MAX_OPERANDS or (len(channels) > MAX_CHANNELS and not binary):
        return None
    if "v" not in names:
        return None
    epilogue = _epilogue(names, steps, len(operands), tuple(constants), tuple(channels))
    attrs = {**layer.attrs, "operands": operands}
    attrs["epilogue"] = rounded(epilogue) if binary else epilogue
    return Layer(layer.op, chain.name, list(layer.inputs), chain.outputs, attrs)


def _is_for_each(tensor: Tensor, made: Tensor, *, rows: bool) -> bool:
    """Has it a number for each output: of a convolution, or of a product of rows?"""
    if rows:
        return tensor.size == made.shape[-1] == tensor.shape[-1]
    return tensor.shape in ((made.shape[1], 1, 1), (1, made.shape[1], 1, 1))


def _epilogue(
    names: list[str], steps: list[Step], operands: int, constants: tuple[float, ...],
    channels: tuple[Array, ...],
) -> Epilogue:  # fmt: skip
    known, lines = list(names), []
    for number, step in enumerate(steps):
        text = step.vector.format(*(known[a] for a in step.arguments))
        lines.append(f"const vf e{number} = {text};")
        known.append(f"e{number}")
    lines.append(f"v = {known[-1]};")
    text = " ".join(lines).replace("@CHANNELS", str(len(channels))) + " "
    key = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Epilogue(key, text, tuple(f"q{n}" for n in range(operands)), constants, channels)
