"""What a search has measured, kept in a file so that a second run goes on where the first ended."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_tool.files import atomic_path
from infer_tool.ledger import package_versions
from infer_tool.report.model import plain
from quant.config import QuantizeConfig

if TYPE_CHECKING:
    from pathlib import Path

    from infer_tool.config import Quantize
    from infer_tool.data import Dataset

FORMAT = 1
HASHED_BATCH = 16
# Besides the options of quantisation: what a measurement depends on. Limits are not among them.
RELEVANT = ("metric", "engine", "samples", "calib", "calib_samples")


@dataclass
class State:
    """Figures of models, by what names them; every new one is written at once."""

    path: Path
    key: str
    noise: dict[str, float] = field(default_factory=dict)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    found: int = 0

    def save(self) -> None:
        """Write the file whole."""
        body = {"format": FORMAT, "key": self.key, "noise": self.noise, "points": self.points}
        with atomic_path(self.path, force=True) as path:
            path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")

    def close(self, *, keep: bool) -> None:
        """The search has its answer."""
        if not keep:
            self.path.unlink(missing_ok=True)


def state_path(config: Quantize) -> Path:
    """In the report's folder where there is one, else beside the output."""
    if config.report is not None:
        return config.report / "search.json"
    return config.output.with_name(f"{config.output.name}.search.json")


def open_state(path: Path, key: str) -> State:
    """What an earlier run of the same search left; nothing where the file is of another one."""
    state = State(path, key)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return state
    if isinstance(body, dict) and body.get("format") == FORMAT and body.get("key") == key:
        state.noise, state.points = body["noise"], body["points"]
        state.found = len(state.noise) + len(state.points)
    return state


def search_key(
    source: ir.Model, calibration: Dataset, evaluation: Dataset, config: Quantize
) -> str:
    """Digest of the model, the samples, the options and the versions that shape a measurement."""
    digest = hashlib.sha256()
    digest.update(ir.to_proto(source).SerializeToString(deterministic=True))
    for data in (calibration, evaluation):
        _add(digest, data)
    names = [f.name for f in fields(QuantizeConfig)] + list(RELEVANT)
    options = {name: plain(getattr(config, name)) for name in names}
    digest.update(json.dumps([options, package_versions()], sort_keys=True).encode())
    return digest.hexdigest()


def _add(digest: Any, data: Dataset) -> None:
    for feeds, labels in data.batches(HASHED_BATCH):
        for name in sorted(feeds):
            digest.update(f"{name}{feeds[name].dtype}{feeds[name].shape}".encode())
            digest.update(feeds[name].tobytes())
        digest.update(b"" if labels is None else labels.tobytes())
