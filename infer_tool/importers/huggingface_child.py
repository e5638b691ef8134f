"""Building a model of transformers from a folder, and choosing its inputs; child side."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # before the import reads them

import numpy as np
import torch
import transformers

from infer_runtime.errors import ModelError, UsageError
from infer_tool.importers.torch_inputs import InputSpec, parse_input
from infer_tool.importers.torch_module_child import export_module, submodule
from infer_tool.quiet import quiet
from infer_tool.reason import reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from infer_tool.importers.torch_program import Opened

# Task: the classes that build a model for it, and the outputs that are kept, where they exist.
TASKS = {
    "features": (("AutoModel",), ("last_hidden_state", "image_embeds", "text_embeds")),
    "classification": (
        ("AutoModelForSequenceClassification", "AutoModelForImageClassification"), ("logits",)
    ),
    "causal-lm": (("AutoModelForCausalLM",), ("logits",)),
}  # fmt: skip

UNUSED = "pooler."  # its output is not among those that are kept
SHOWN = 3


def open_source(source: str, options: Mapping[str, Any], folder: Path) -> Opened:
    """Build, choose inputs and outputs, export; weights of any type compute in float32."""
    classes, outputs = TASKS[options["task"]]
    model, stored = _build(source, classes)
    model = submodule(model, options["submodule"], source).eval()
    specs = [parse_input(text) for text in options["input"]] or _inputs(model, source)
    _check_inputs(model, specs, source)
    opened = export_module(_Named(model, [s.name for s in specs], outputs), specs, source, folder)
    opened.route = f"transformers, {options['task']}{stored}"
    return opened


def _build(source: str, classes: tuple[str, ...]) -> tuple[Any, str]:
    failures = []
    for name in classes:
        try:
            with quiet():
                model, stored, missing = _load(source, getattr(transformers, name))
        except Exception as error:  # noqa: BLE001 - transformers raises what its models raise
            failures.append(reason(error))
            continue
        if missing:  # transformers would go on with random numbers
            raise ModelError(
                f"{source}: holds no weights for {', '.join(missing[:SHOWN])}; it was not made for "
                "this task, choose another one with --task"
            )
        wide = stored in ("", "float32")
        return model, "" if wide else f", {stored} weights widened to float32"
    raise ModelError(f"{source}: transformers cannot build it: {failures[0]}")


def _load(source: str, kind: Any) -> tuple[Any, str, list[str]]:
    """The model, the type of its weights on disk, and the weights that are not there."""
    config = transformers.AutoConfig.from_pretrained(
        source, local_files_only=True, trust_remote_code=False
    )
    stored = str(getattr(config, "dtype", None) or "").removeprefix("torch.")
    model, loaded = kind.from_pretrained(
        source, config=config, local_files_only=True, trust_remote_code=False,
        use_safetensors=True, dtype=torch.float32, attn_implementation="eager",
        output_loading_info=True,
    )  # fmt: skip
    missing = [*loaded["missing_keys"], *(str(key) for key in loaded["mismatched_keys"])]
    return model, stored, sorted(key for key in missing if not key.startswith(UNUSED))


def _inputs(model: Any, source: str) -> list[InputSpec]:
    """Words or a picture, as the model's `forward` and configuration say."""
    parameters = inspect.signature(model.forward).parameters
    ids = np.dtype(np.int64)
    if "input_ids" in parameters:
        names = ["input_ids", "attention_mask"]
        if (
            "token_type_ids" in parameters
            and (getattr(model.config, "type_vocab_size", 0) or 0) > 1
        ):
            names.append("token_type_ids")
        found = [n for n in names if n in parameters]
        return [InputSpec(n, ("batch", "length"), ids) for n in found]
    size = getattr(model.config, "image_size", None)
    if "pixel_values" in parameters and size is not None:
        height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        shape = ("batch", int(getattr(model.config, "num_channels", 3)), height, width)
        return [InputSpec("pixel_values", shape, np.dtype(np.float32))]
    raise UsageError(
        f"{source}: state its inputs with --input name:1x3x224x224:float32; its forward takes "
        f"{', '.join(parameters)}"
    )


def _check_inputs(model: Any, specs: list[InputSpec], source: str) -> None:
    parameters = inspect.signature(model.forward).parameters
    for spec in specs:
        if spec.name not in parameters:
            raise UsageError(f"--input {spec.name}: {source} takes {', '.join(parameters)}")


class _Named(torch.nn.Module):
    """Tensors in, by position; a dict of the wanted outputs out; no cache, no labels."""

    def __init__(self, model: Any, names: list[str], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names, self.outputs = model, names, outputs
        self.cache = "use_cache" in inspect.signature(model.forward).parameters

    def forward(self, *tensors: Any) -> Any:
        given = dict(zip(self.names, tensors, strict=True))
        if self.cache:
            given["use_cache"] = False
        result = self.model(**given)
        kept = {name: result[name] for name in self.outputs if name in result}
        return kept or result
