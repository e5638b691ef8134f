"""Every node case of the ONNX standard that the emitter claims, as C for any processor.

All models go into one library: the compiler is the slow part. A case whose inputs decide about
shapes runs with all inputs but the first as constants.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from infer_native import NativeModel, emit_model
from infer_native.build import find_compiler, run_compiler
from infer_native.claims import claims
from infer_native.prepare import OLDEST_OPSET
from infer_runtime.errors import InferError, ModelError, UnsupportedOpError

if TYPE_CHECKING:
    from infer_native.emit import Emitted

EXCLUDED = Path(__file__).parents[1] / "runtime" / "conformance_excluded.txt"
FAULTY = {line.partition(":")[0] for line in EXCLUDED.read_text().splitlines()}  # by the suite
FEWEST_OPERATORS, FEWEST_CASES = 120, 850
# What kernels refuse by name, in operators that they otherwise have.
REFUSED = {
    "maxpool_with_argmax": "positions", "batchnorm_.*_training_mode": "training mode",
    "resize_tf_crop_and_resize": "tf_crop_and_resize", "dropout_default_mask": "mask",
    "resize_downsample_sizes_nearest_not_smaller": "long, not",
    "(gru|lstm|simple_rnn)_batchwise": "layout 1",
}  # fmt: skip


@dataclass
class Case:
    """A model that was emitted, and what it is fed and must give."""

    name: str
    emitted: Emitted
    feeds: list[dict[str, Any]]
    wanted: list[list[Any]]
    rtol: float
    atol: float


def _suite() -> list[Any]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(load_model_tests(kind="node"))


def _array(item: Any) -> Any:
    """An array; None for sequences and optionals."""
    if isinstance(item, onnx.TensorProto):
        return numpy_helper.to_array(item)
    return item if isinstance(item, np.ndarray) else None


def _is_claimed(case: Any) -> bool:
    """Are all operators and types of a case in the table?"""
    model, table = case.model, claims()
    if any(o.version < OLDEST_OPSET for o in model.opset_import if not o.domain):
        return False
    arrays = [_array(x) for part in case.data_sets[0] for x in part]
    if model.functions or any(a is None for a in arrays):
        return False
    if any(node.domain or node.op_type not in table for node in model.graph.node):
        return False
    types = {t for node in model.graph.node for t in table[node.op_type]}
    return all(a.dtype.name in types for a in arrays)


def _emitted(case: Any) -> Case:
    model, names = case.model, [i.name for i in case.model.graph.input]
    arrays = [[_array(x) for x in inputs] for inputs, _ in case.data_sets]
    free = names
    try:
        emitted = _emit(model, dict(zip(names, arrays[0], strict=True)))
    except (ModelError, UnsupportedOpError):
        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        free = names[:1] if len(names) > 1 else []
        for name, value in list(zip(names, arrays[0], strict=True))[len(free) :]:
            fixed.graph.initializer.append(numpy_helper.from_array(value, name))
        del fixed.graph.input[len(free) :]
        emitted = _emit(fixed, dict(zip(free, arrays[0], strict=False)))
        arrays = arrays[:1]
    feeds = [dict(zip(free, values, strict=False)) for values in arrays]
    wanted = [[_array(x) for x in outputs] for _, outputs in case.data_sets[: len(feeds)]]
    return Case(case.name, emitted, feeds, wanted, case.rtol, case.atol)


def _emit(model: onnx.ModelProto, feeds: dict[str, Any]) -> Emitted:
    shapes = {name: value.shape for name, value in feeds.items() if value.ndim}
    return emit_model(ir.from_proto(model), shapes, "scalar")


def _source(number: int, emitted: Emitted) -> str:
    """One of many models in a file: its functions have names of their own."""
    text = emitted.source.replace('#include "model.h"', "")
    return re.sub(r"\b(f\d+|nx_\w+|q_\w+|model_\w+)(?=\()", rf"c{number}_\1", text)


@pytest.fixture(scope="module")
def cases(
    tmp_path_factory: pytest.TempPathFactory, compiler: str
) -> tuple[list[Case], dict[str, str], Path]:
    """The cases that were emitted, why others were refused, and the library."""
    found, refused = [], {}
    for case in filter(_is_claimed, _suite()):
        if case.name in FAULTY:
            continue
        try:
            found.append(_emitted(case))
        except InferError as error:
            refused[case.name.removeprefix("test_")] = str(error)
    folder = tmp_path_factory.mktemp("suite")
    head = "#define MODEL_OK 0\n#define MODEL_ERROR_NULL 1\n#define MODEL_ERROR_ALIGNMENT 2\n"
    head += "#include <stddef.h>\n#include <stdint.h>\n"
    texts = (_source(n, c.emitted) for n, c in enumerate(found))
    (folder / "suite.c").write_text(head + "\n".join(texts))
    run_compiler(
        [*find_compiler(compiler).command, "-std=c11", "-O0", "-w", "-fPIC", "-shared",
         str(folder / "suite.c"), "-lm", "-o", str(folder / "suite.so")]
    )  # fmt: skip
    return found, refused, folder / "suite.so"


def test_enough_operators_are_claimed() -> None:
    assert len(claims()) >= FEWEST_OPERATORS


def test_only_known_features_are_refused(cases: Any) -> None:
    found, refused, _ = cases
    assert len(found) >= FEWEST_CASES
    for name, reason in refused.items():
        known = [why for pattern, why in REFUSED.items() if re.match(pattern, name)]
        assert known, f"{name}: {reason}"
        assert known[0] in reason, f"{name}: {reason}"


def test_every_claimed_case(cases: Any) -> None:
    found, _, library = cases
    wrong = []
    for number, case in enumerate(found):
        native = NativeModel(case.emitted, library, f"c{number}_model_run")
        for feeds, wanted in zip(case.feeds, case.wanted, strict=True):
            for got, want in zip(native.run(feeds).values(), wanted, strict=True):
                try:
                    assert (got.dtype, got.shape) == (want.dtype, want.shape)
                    np.testing.assert_allclose(got, want, rtol=case.rtol, atol=case.atol)
                except AssertionError as error:
                    wrong.append(f"{case.name}: {' '.join(str(error).split())[:120]}")
    assert not wrong, "\n".join(wrong)
