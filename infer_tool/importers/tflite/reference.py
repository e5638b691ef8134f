"""The other opinion on a TFLite file: LiteRT, else TensorFlow's copy of it, in a process of its own."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import MissingExtraError
from infer_tool.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infer_tool.importers import Outputs
    from infer_tool.importers.tflite.signatures import Entry

ENGINES = ("ai_edge_litert", "tensorflow")


class LazyReference:
    """Starts the interpreter only when somebody compares with it."""

    def __init__(self, source: str, entry: Entry) -> None:
        self._source, self._entry = source, entry
        self._worker: Worker | None = None

    def __call__(self, feeds: Mapping[str, Any]) -> Outputs:
        """Run the file.

        Raises:
            MissingExtraError: no interpreter is installed.
            ModelError: it cannot run the file.

        """
        if self._worker is None:
            self._worker = self._started()
        return self._worker(feeds)

    def _started(self) -> Worker:
        if all(find_spec(name) is None for name in ENGINES):
            raise MissingExtraError(
                "nothing here runs TFLite files, and an import is not written before it is "
                "compared; run: pip install 'infertool[litert]'"
            )
        options = {"inputs": self._entry.inputs, "outputs": self._entry.outputs,
                   "subgraph": self._entry.subgraph, "signature": self._entry.signature}  # fmt: skip
        return Worker("infer_tool.importers.tflite.interpreter", self._source, options)
