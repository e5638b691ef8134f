"""How the documentation is built: python -m sphinx -W docs build/docs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from generate import write_reference

project = "infertool"
extensions = ["myst_parser"]
exclude_patterns = ["examples"]
html_theme = "alabaster"
html_theme_options = {"description": "From a trained model to a small, fast, proven file."}
html_show_copyright = False
myst_heading_anchors = 3
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]


def setup(app: object) -> None:
    """The reference is made from the code at every build."""
    write_reference(Path(__file__).parent / "reference")
