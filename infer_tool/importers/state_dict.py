"""Weights beside a module's code: --state-dict FILE, .pt or .safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infer_runtime.errors import ModelError, UsageError
from infer_tool.importers import safetensors
from infer_tool.importers.torch_archive import check_zip
from infer_tool.reason import reason

HEAD = 16
WRAPPERS = ("state_dict", "model_state_dict", "model")  # what checkpoints call it
SHOWN = 3


def check_state_dict(path: Path) -> int:
    """Look at the file without torch; returns its bytes.

    Raises:
        UsageError: no such file.
        ModelError: neither safetensors nor what torch.save writes, or damaged.

    """
    if not path.is_file():
        raise UsageError(f"--state-dict {path}: no such file")
    with path.open("rb") as handle:
        head = handle.read(HEAD)
    if safetensors.looks_like(head):
        safetensors.read_header(path)
    elif head.startswith(b"PK"):
        check_zip(path)
    elif not head.startswith(b"\x80\x02"):
        raise ModelError(f"--state-dict {path}: neither safetensors nor a file of torch.save")
    return path.stat().st_size


def load_state_dict(module: Any, file: str, source: str) -> None:
    """Put the weights into the module; every key must fit.

    Raises:
        ModelError: the file holds more than tensors, or does not fit the module.

    """
    import torch

    path = Path(file)
    with path.open("rb") as handle:
        is_safe = safetensors.looks_like(handle.read(HEAD))
    try:
        if is_safe:
            weights: Any = safetensors.load_tensors(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A pickle that is refused and one that is damaged fail in many ways.
        raise ModelError(
            f"--state-dict {file}: torch cannot read it as tensors only ({_why(error)}); save it "
            "again with torch.save(module.state_dict(), ...) or as safetensors"
        ) from error
    weights = _unwrapped(weights)
    if not isinstance(weights, dict):
        raise ModelError(f"--state-dict {file}: holds {type(weights).__name__}, not a state dict")
    _check_keys(module, weights, file, source)
    try:
        module.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"--state-dict {file}: does not fit {source}: {last}") from error


def _why(error: Exception) -> str:
    """torch's advice to unpickle without protection is none of ours."""
    text = reason(error)
    return "it holds other objects" if "weights only" in text.lower() else text


def _unwrapped(weights: Any) -> Any:
    for key in WRAPPERS if isinstance(weights, dict) else ():
        if isinstance(weights.get(key), dict):
            return weights[key]
    return weights


def _check_keys(module: Any, weights: dict[str, Any], file: str, source: str) -> None:
    wanted = module.state_dict().keys()
    for problem, keys in (("lacks", wanted - weights.keys()), ("has", weights.keys() - wanted)):
        if keys:
            listed = ", ".join(sorted(map(str, keys))[:SHOWN])
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            beyond = " too many" if problem == "has" else ""
            raise ModelError(
                f"--state-dict {file}: does not fit {source}: {problem} {listed}{more}{beyond}"
            )
