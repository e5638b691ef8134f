"""`infertool run`: a whole pipeline from a recipe, or a result made again from its manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from infer_tool.config import Run
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal


def run(config: Run, ui: Terminal) -> Report:
    """Run the stages of a recipe, or repeat the command of a manifest.

    Raises:
        UsageError: the recipe, a manifest or a path is wrong.
        GateError: the result, or a stage, missed a limit.
        InferError: what else ended a stage, with its exit status; no file is written.

    """
    if (config.recipe is None) == (config.locked is None):
        raise UsageError(
            "give one of a recipe and a manifest: infertool run recipe.yaml, or "
            "infertool run --locked manifest.json"
        )
    if config.locked is not None:
        from infer_tool.locked import repeat

        return repeat(config, config.locked, ui)
    from infer_tool.pipeline import run_recipe

    assert config.recipe is not None
    return run_recipe(config, config.recipe, ui)
