"""One-dimensional convolutions, and the chains between them, as images of one row.

Given:  y[N, C, W] = Conv(x[N, C, W], w[M, C, K])
Result: the same on [N, C, 1, W], so that the kernels for images take it; all tensors are views
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_native.program import Layer, Tensor

if TYPE_CHECKING:
    from infer_native.program import Program

_BEFORE = {"strides": [1], "dilations": [1], "kernel_shape": [1]}


def lift(program: Program) -> None:
    """Rewrite every Conv with an input of rank 3, and every chain on such tensors alone."""
    for number, layer in enumerate(program.layers):
        if layer.op == "Conv" and len(layer.input(0).shape) == 3:
            program.layers[number] = lifted(layer)
        elif layer.op == "_Map" and len(layer.output().shape) == 3:
            shape = layer.output().shape
            given = [t for t in layer.inputs if t is not None]
            if all(t.size == 1 or t.shape == shape for t in given):
                changed: list[Tensor | None] = [t if t.size == 1 else _image(t) for t in given]
                program.layers[number] = _lifted(layer, changed, layer.attrs)


def lifted(layer: Layer) -> Layer:
    """A convolution of [N, C, W] as one of images; its weights are its second input, if any."""
    images: list[Tensor | None] = [_image(layer.input(n)) for n in range(len(layer.inputs[:2]))]
    return _lifted(layer, [*images, *layer.inputs[2:]], _attributes(layer.attrs))


def _lifted(layer: Layer, inputs: list[Tensor | None], attrs: dict[str, Any]) -> Layer:
    output = layer.output()
    n, c, w = output.shape
    made = Tensor(f"{output.name}_row", (n, c, 1, w), output.dtype)
    output.view_of = made
    return Layer(layer.op, layer.name, inputs, [made], attrs)


def _attributes(attrs: dict[str, Any]) -> dict[str, Any]:
    """Of a convolution, with a first axis that does nothing."""
    found = dict(attrs)
    for name, before in _BEFORE.items():
        if name in found:
            found[name] = before + list(found[name])
    if "pads" in found:
        first, last = found["pads"]
        found["pads"] = [0, first, 0, last]
    return found


def _image(tensor: Tensor) -> Tensor:
    """[N, C, W] as [N, C, 1, W]: what it is a view of, or a new view."""
    n, c, w = tensor.shape
    if tensor.view_of is not None and tensor.view_of.shape == (n, c, 1, w):
        return tensor.view_of
    return Tensor(f"{tensor.name}_row", (n, c, 1, w), tensor.dtype, view_of=tensor)
