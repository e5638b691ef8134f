"""The sums of inner loops stay in registers: hardly a vector goes to the stack and back.

gcc keeps two sums of some tiles in memory, with SSE two more numbers; a tile with more sums than
registers, or numbers carried from turn to turn, moves a third of what it reads.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import onnx_ir as ir
import pytest
from networks import chained, convolutions, integer_network

from infer_native import emit_model
from infer_native.build import FLAGS, write_sources

if TYPE_CHECKING:
    from pathlib import Path

KERNEL = re.compile(r"(gemm|dw|q|qm|qw|qdw)_\d")
PRODUCTS = re.compile(r"\bv(fn?madd|pdpbusd|dpbf16|pmaddwd|mulps)|\bpmaddwd|\bmulps")
CALL = re.compile(r"\bcall\b")
STACK = re.compile(r"%[xyz]mm\d+.*-?\w*\(%r[sb]p\)|\(%r[sb]p\).*%[xyz]mm\d+")
FEWEST = 4  # products that make a loop an inner loop of a kernel
SHARE = {"avx512": 0.05, "avx2": 0.05, "sse": 0.08}  # of the instructions that may use the stack
CASES = [(k, "avx512") for k in ("convolutions", "integer", "winograd", "bf16")]
CASES += [(k, isa) for k in ("convolutions", "integer", "winograd") for isa in ("avx2", "sse")]


def inner_loops(assembly: str) -> list[tuple[str, list[str]]]:
    """Function and instructions of every loop that has none inside."""
    lines, labels, loops, function = assembly.splitlines(), {}, [], ""
    for number, line in enumerate(lines):
        if (name := re.match(r"(\w+)(\.\w+\.\d+)?:", line)) and not line.startswith(".L"):
            function = name[1]
        elif label := re.match(r"(\.L\w+):", line):
            labels[label[1]] = number
        elif (jump := re.match(r"\s+j\w+\s+(\.L\w+)", line)) and jump[1] in labels:
            loops.append((function, labels[jump[1]], number))
    return [
        (f, lines[a:b])
        for f, a, b in loops
        if not any(a <= c and d < b for _, c, d in loops if (c, d) != (a, b))
    ]


@pytest.mark.parametrize(("kind", "isa"), CASES)
def test_no_inner_loop_spills(tmp_path: Path, kind: str, isa: str) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("gcc is not here")
    if kind == "integer":
        model = integer_network()
    else:
        network = kind in ("convolutions", "bf16")
        model = ir.from_proto(convolutions()) if network else chained(1, 64, 14)[0]
    emitted = emit_model(model, isa=isa, precision="bf16" if kind == "bf16" else "fp32")
    write_sources(emitted, tmp_path)
    subprocess.run(
        [gcc, *FLAGS, *emitted.isa.flags, "-fno-inline", "-S", "model.c", "-o", "model.s"],
        cwd=tmp_path,
        check=True,
    )
    found = [
        (f, body)
        for f, body in inner_loops((tmp_path / "model.s").read_text())
        if KERNEL.match(f) and sum(bool(PRODUCTS.search(x)) for x in body) >= FEWEST
        and not any(CALL.search(x) for x in body)  # of the rounding behind the sums
    ]  # fmt: skip
    assert len(found) >= 1
    shares = {f: sum(bool(STACK.search(x)) for x in body) / len(body) for f, body in found}
    assert not {f: share for f, share in shares.items() if share > SHARE[isa]}
