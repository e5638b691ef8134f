"""Hugging Face model folders: config.json and safetensors, through transformers, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError, UsageError
from infer_tool.extras import check_installed
from infer_tool.importers.safetensors import read_header
from infer_tool.importers.torch_inputs import parse_input
from infer_tool.importers.torch_source import import_torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infer_tool.importers import Imported, ImportOptions

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
LARGEST_JSON = 64_000_000  # bytes; the index of the largest models has some megabytes
# What the last part of an architecture's name says about its purpose.
TASKS = {"ForSequenceClassification": "classification", "ForImageClassification": "classification",
         "ForCausalLM": "causal-lm", "LMHeadModel": "causal-lm"}  # fmt: skip
KNOWN = ("features", "classification", "causal-lm")


def load(source: str, options: ImportOptions) -> Imported:
    """Check the folder, then let transformers build the model and torch export it.

    Raises:
        UsageError: an unknown task, or an --input that the model has not.
        ModelError: no safetensors, damaged, code of its own, quantised, or a link out of it.
        MissingExtraError: torch or transformers is not installed.
        LimitError: it needs more time or memory than there is.

    """
    folder = Path(source)
    for text in options.input:
        parse_input(text)
    config, files = check_folder(folder, follow_links=options.follow_links)
    task = options.task or _task(config)
    if task not in KNOWN:
        raise UsageError(f"--task {task!r}: expected one of {', '.join(KNOWN)}")
    check_installed("transformers", "huggingface")
    size = sum(file.stat().st_size for file in files)
    return import_torch(
        source, "huggingface", folder, options, weights=size, extra="huggingface", task=task
    )


def check_folder(folder: Path, *, follow_links: bool = False) -> tuple[dict[str, Any], list[Path]]:
    """The configuration and the weight files, read without transformers.

    Raises:
        ModelError: naming the file and what is wrong with it.

    """
    config = _json(folder / CONFIG)
    if "model_type" not in config:
        raise ModelError(f"{folder / CONFIG}: names no model_type")
    if "quantization_config" in config:
        raise ModelError(
            f"{folder / CONFIG}: is quantised for other kernels (quantization_config); take the "
            "model that it was made from"
        )
    files = list(_weights(folder))
    for file in (folder / CONFIG, *files):
        _check_link(folder, file, follow_links=follow_links)
    for file in files:
        read_header(file)
    return config, files


def _weights(folder: Path) -> Iterator[Path]:
    if (folder / WHOLE).is_file():
        yield folder / WHOLE
        return
    if not (folder / INDEX).is_file():
        pickles = sorted(p.name for p in folder.glob("*.bin"))
        hint = (
            f"{pickles[0]} is a pickle, which is not read: save the model again with "
            "save_pretrained(folder)" if pickles else f"expected {WHOLE}"
        )  # fmt: skip
        raise ModelError(f"{folder}: holds no safetensors; {hint}")
    names = _json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise ModelError(f"{folder / INDEX}: is damaged; copy it again")
    for name in sorted(set(names.values())):
        if Path(name).name != name or not (folder / name).is_file():
            raise ModelError(f"{folder / INDEX}: names {name[:80]!r}, which is no file beside it")
        yield folder / name


def _check_link(folder: Path, file: Path, *, follow_links: bool) -> None:
    target = file.resolve()
    if not follow_links and not target.is_relative_to(folder.resolve()):
        raise ModelError(
            f"{file}: is a link to {target}, outside of the folder; add --follow-links if you "
            "trust it, as in the cache of Hugging Face"
        )


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LARGEST_JSON:
        raise ModelError(f"{path}: is larger than {LARGEST_JSON} bytes")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is no JSON; copy it again") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: is no JSON object; copy it again")
    return document


def _task(config: dict[str, Any]) -> str:
    """What the configuration names; the plain model where it names something else."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    return next((task for end, task in TASKS.items() if name.endswith(end)), "features")
