"""Variables: what is read and assigned by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.tflite.registry import op
from infer_tool.importers.tflite.states import variable_name

if TYPE_CHECKING:
    from infer_tool.importers.tflite.call import Call


@op("VAR_HANDLE")
def var_handle(c: Call) -> None:
    """The output stands for the variable of this name."""
    c.scope.handles[c.result().index] = variable_name(c.operator, c.scope.subgraph)


@op("READ_VARIABLE")
def read_variable(c: Call) -> None:
    """Its value now."""
    c.bind(c.scope.shared.states.read(c.scope.handle(c.tensor(0)), c.result()))


@op("ASSIGN_VARIABLE")
def assign_variable(c: Call) -> None:
    """Its value from now on; in a subgraph that runs once, its first value."""
    states, name = c.scope.shared.states, c.scope.handle(c.tensor(0))
    if not states.is_initialising:
        if c.scope.is_inner:
            raise c.unsupported(f"variable {name!r} is assigned in a branch, loop or call")
        states.assign(name, c.tensor(1), c.stored(1))
        return
    array = c.array(1)
    if array is None:
        raise c.unsupported(f"the first value of variable {name!r} is computed")
    states.initial[name] = array
