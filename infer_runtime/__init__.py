"""The reference runtime: what an ONNX graph means, on NumPy and on torch.

`Session(path_or_model).run({"x": array}) -> {"y": array}`. Light to import: the names load on use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infer_runtime.evaluate import run_node
    from infer_runtime.session import NodeTime, Session, TensorInfo

__all__ = ["NodeTime", "Session", "TensorInfo", "run_node"]

_HOME = {
    "NodeTime": "session",
    "Session": "session",
    "TensorInfo": "session",
    "run_node": "evaluate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"infer_runtime.{_HOME[name]}"), name)
