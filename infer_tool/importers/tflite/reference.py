"""The other opinion on a TFLite file: LiteRT, else TensorFlow's copy, in its own process."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import MissingExtraError
from infer_tool.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infer_tool.importers import Outputs
    from infer_tool.importers.tflite.graph import Result

ENGINES = ("ai_edge_litert", "tensorflow")


class LazyReference:
    """Starts the interpreter only when somebody compares with it.

    It remembers its variables: feed their first values (or none), or what the run before returned.
    """

    def __init__(self, source: str, result: Result, is_hybrid: bool) -> None:
        self._source = source
        self._options = {
            "inputs": result.entry.inputs,
            "outputs": result.entry.outputs,
            "keys": result.entry.keys,
            "subgraph": result.entry.subgraph,
            "signature": result.entry.signature,
            "states": {
                name: {"output": output, "tensor": state.tensor,
                       "first": state.initial.tolist(), "dtype": state.initial.dtype.name}
                for (name, output), state in zip(
                    result.state_names.items(), result.states.values(), strict=True
                )
            },
            "hybrid": is_hybrid,
        }  # fmt: skip
        self._worker: Worker | None = None

    def __call__(self, feeds: Mapping[str, Any]) -> Outputs:
        """Run the file.

        Raises:
            MissingExtraError: no interpreter is installed.
            ModelError: it cannot run the file, or cannot be put into these states.

        """
        if self._worker is None:
            self._worker = self._started()
        return self._worker(feeds)

    def _started(self) -> Worker:
        if all(find_spec(name) is None for name in ENGINES):
            raise MissingExtraError(
                f"{self._source}: nothing here runs TFLite files, and no import is written "
                "before it was compared; run: pip install 'infertool[litert]'"
            )
        return Worker("infer_tool.importers.tflite.interpreter", self._source, self._options)
