"""How long `infertool --help` takes, beside `python -c "import typer"`, in turns.

    python benchmarks/startup.py

Prints both medians and exits 1 when the ratio is above 3.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 15
ASKED = 3.0
COMMANDS = {
    "infertool --help": [sys.executable, "-m", "infer_tool", "--help"],
    "import typer": [sys.executable, "-c", "import typer"],
}


def main() -> int:
    """Measure, print, judge."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, value in medians.items():
        print(f"{name:<20}{1e3 * value:8.1f} ms")
    ratio = medians["infertool --help"] / medians["import typer"]
    print(f"{'ratio':<20}{ratio:8.2f}    asked <= {ASKED:g}")
    return 0 if ratio <= ASKED else 1


if __name__ == "__main__":
    sys.exit(main())
