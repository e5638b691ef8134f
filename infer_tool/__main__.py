"""`python -m infer_tool` is `infertool`."""

from __future__ import annotations

from infer_tool.cli import main

if __name__ == "__main__":
    main()
