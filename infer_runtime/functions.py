"""Model-local functions: what they unfold to, before anybody unfolds them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from infer_runtime.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

DEEPEST = 100  # calls inside calls; inliners and engines recurse
MOST_NODES = 1_000_000  # of the unfolded graph


def check_functions(model: ir.Model) -> None:
    """A few functions that call each other twice unfold to more than any memory holds.

    Raises:
        ModelError: a function calls itself, calls are too deep, or unfold to too many nodes.

    """
    calls = {key: _calls(f.all_nodes(), model.functions) for key, f in model.functions.items()}
    depth: dict[ir.OperatorIdentifier, int] = {}
    size: dict[ir.OperatorIdentifier, int] = {}
    for key in _callees_first(calls):
        depth[key] = 1 + max((depth[k] for k in calls[key]), default=0)
        inner = sum(times * size[k] for k, times in calls[key].items())
        size[key] = inner + sum(1 for _ in model.functions[key].all_nodes())
        if depth[key] > DEEPEST:
            raise ModelError(f"its functions call each other more than {DEEPEST} deep")
    outer = _calls(model.graph.all_nodes(), model.functions)
    if (nodes := sum(times * size[k] for k, times in outer.items())) > MOST_NODES:
        raise ModelError(f"its functions unfold to {nodes} nodes, more than {MOST_NODES}")


def _calls(
    nodes: Iterable[ir.Node], functions: Mapping[ir.OperatorIdentifier, ir.Function]
) -> Counter[ir.OperatorIdentifier]:
    return Counter(n.op_identifier() for n in nodes if n.op_identifier() in functions)


def _callees_first(
    calls: Mapping[ir.OperatorIdentifier, Iterable[ir.OperatorIdentifier]],
) -> list[ir.OperatorIdentifier]:
    """Every function after those that it calls."""
    done: dict[ir.OperatorIdentifier, None] = {}
    for start in calls:
        path = [start]
        open_ones = {start}
        while path:
            waiting = [k for k in calls[path[-1]] if k not in done]
            if not waiting:
                open_ones.discard(path[-1])
                done[path.pop()] = None
            elif waiting[0] in open_ones:
                raise ModelError(f"its function {waiting[0][0]}.{waiting[0][1]} calls itself")
            else:
                path.append(waiting[0])
                open_ones.add(waiting[0])
    return list(done)
