"""Settings of all tests: no property is judged by the speed of the machine."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("default", deadline=None)
# The same examples on every run, so that a red run is about the change.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
