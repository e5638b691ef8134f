"""Size, work, time and error of every node of a model, for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.report.model import Layer
from passes.facts import macs_by_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir

    from infer_tool.attribution import Layer as Noise
    from infer_tool.engines.profile import Row

CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")  # their weights are those of who reads them


def layers_of(
    model: ir.Model,
    noise: Iterable[Noise] = (),
    times: Iterable[Row] = (),
    engine: str | None = None,
    sizes: Mapping[str, Sequence[int]] | None = None,
) -> list[Layer]:
    """A row for each node with weights, MACs, an error or a time.

    Args:
        model: its main graph, in order; nodes that only the engine knows come last.
        noise: how far values are from those of the source, see `rank_layers`.
        times: milliseconds, see `node_times`.
        engine: that took these times.
        sizes: shapes of the inputs, for the MACs of a model with dynamic dimensions.

    """
    macs = macs_by_node(model, sizes)
    errors = {n.node: n for n in reversed(list(noise))}  # the noisiest value of a node
    rows = {name: (op, ms) for name, op, ms in times}
    found = []
    for node in model.graph:
        name = node.name or "?"
        error, (_, ms) = errors.get(name), rows.pop(name, ("", None))
        found.append(
            Layer(
                node=name,
                op=node.op_type,
                bytes=0 if node.op_type in CONVERSIONS else weight_bytes(node),
                macs=macs.get(name, 0),
                ms=ms,
                engine=None if ms is None else engine,
                own_noise=None if error is None else error.own.noise_ratio,
                noise=None if error is None else error.accumulated.noise_ratio,
            )
        )
    found += [Layer(name, op, ms=ms, engine=engine) for name, (op, ms) in rows.items()]
    return [x for x in found if x.bytes or x.macs or x.ms or x.noise]


def weight_bytes(node: ir.Node) -> int:
    """Of the arrays that a node reads, itself or through DequantizeLinear; not single numbers."""
    return sum(_stored(value) for value in node.inputs if value is not None)


def _stored(value: ir.Value) -> int:
    if value.is_initializer() and value.const_value is not None:
        return int(value.const_value.nbytes) if value.const_value.size > 1 else 0
    maker = value.producer()
    if maker is not None and maker.op_type == "DequantizeLinear":
        return sum(_stored(v) for v in maker.inputs if v is not None and v.is_initializer())
    return 0
