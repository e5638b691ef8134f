"""What follows a convolution element by element becomes the end of its tiles."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from infer_native.kernels.binary import fits, rounded
from infer_native.kernels.gemm import Epilogue
from infer_native.program import Layer, Tensor
from infer_native.select import fast_conv, fast_integer

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.kernels.elementwise import Step
    from infer_native.program import Array, Program

MAX_OPERANDS, MAX_CHANNELS = 2, 4
MAX_RATIO = 2**20  # of scales: up to it every sum fits into int32


def fuse_epilogues(program: Program, isa: Isa) -> None:
    """Conv -> chain that only it feeds: the chain's steps move into the convolution.

    The other inputs of the chain are images of the same shape, constants of one number, or of one
    for each channel.
    """
    users = program.users()
    kept = {t.root for t in program.outputs}
    place = {id(layer): i for i, layer in enumerate(program.layers)}
    result: list[Layer | None] = list(program.layers)
    taken: set[int] = set()
    for index, layer in enumerate(program.layers):
        binary = layer.op == "_BConv" and fits(layer, isa)
        if not (binary or fast_conv(layer, isa)) or layer.output().root in kept:
            continue
        readers = users.get(layer.output().root, [])
        if not readers or any(r is not readers[0] for r in readers) or id(readers[0]) in taken:
            continue
        joint = _joined(layer, readers[0])
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


def _joined(conv: Layer, chain: Layer) -> Layer | None:
    binary = conv.op == "_BConv"
    if chain.op != "_Map" or chain.output().shape != conv.output().shape:
        return None
    steps = chain.attrs["steps"]
    if any(not s.vector or s.ctype != "float" for s in steps):
        return None
    names: list[str] = []
    constants: list[float] = []
    operands: list[Tensor] = []
    channels: list[Array] = []
    outputs = chain.output().shape[1]
    for tensor in chain.inputs:
        assert tensor is not None
        if tensor is conv.output():
            names.append("v")
        elif tensor.root.data is not None and tensor.size == 1:
            names.append(f"VSET(k[{len(constants)}])")
            constants.append(float(tensor.root.data.reshape(())))
        elif tensor.root.data is not None and tensor.shape in ((outputs, 1, 1), (1, outputs, 1, 1)):
            names.append(f"LD(h + (@COLUMN * @CHANNELS + {len(channels)}) * VL)")
            channels.append(tensor.root.data)
        elif tensor.shape == chain.output().shape and tensor.root.data is None:
            names.append(f"LD(q{len(operands)} + @AT)")
            operands.append(tensor)
        else:
            return None
    if len(operands) > MAX_OPERANDS or (len(channels) > MAX_CHANNELS and not binary):
        return None
    epilogue = _epilogue(names, steps, len(operands), tuple(constants), tuple(channels))
    attrs = {**conv.attrs, "operands": operands}
    attrs["epilogue"] = rounded(epilogue) if binary else epilogue
    return Layer(conv.op, chain.name, list(conv.inputs), chain.outputs, attrs)


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
