"""What stands beside model.c and model.h: an example, a build file, a README."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from infer_native.build import FLAGS

if TYPE_CHECKING:
    from infer_native.emit import Emitted, Port
    from infer_native.tuning import Tuning

_KINDS = {
    "float32": "f4", "float64": "f8", "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8",
    "uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8", "bool": "b1",
}  # fmt: skip

_EXAMPLE = r"""/* Runs the model: example model.weights input0.npy ... ; prints every output. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *aligned(size_t bytes) {
  unsigned char *raw = malloc(bytes + MODEL_ALIGNMENT);
  if (!raw) return NULL;
  return raw + (MODEL_ALIGNMENT - (uintptr_t)raw % MODEL_ALIGNMENT);
}

/* The data of a file after `skip` bytes, of which there must be exactly `bytes`. */
static int read_exactly(FILE *file, void *to, size_t bytes, const char *name) {
  if (fread(to, 1, bytes, file) == bytes && fgetc(file) == EOF) return 0;
  fprintf(stderr, "%s: does not hold exactly %lu bytes of data\n", name, (unsigned long)bytes);
  return 1;
}

/* A .npy file of the given type, order and number of elements (NumPy's format, version 1 to 3). */
static int read_npy(const char *name, const char *kind, size_t bytes, size_t count, void *to) {
  unsigned char head[12];
  char text[4096];
  FILE *file = fopen(name, "rb");
  int status = 1;
  if (!file) {
    fprintf(stderr, "%s: cannot be opened\n", name);
    return 1;
  }
  if (fread(head, 1, 10, file) == 10 && !memcmp(head, "\x93NUMPY", 6)) {
    size_t length = head[8] + 256u * head[9];
    if (head[6] > 1 && fread(head + 10, 1, 2, file) == 2) length += 65536u * head[10];
    if (length < sizeof text && fread(text, 1, length, file) == length) {
      text[length] = 0;
      if (!strstr(text, kind) || strstr(text, "'fortran_order': True"))
        fprintf(stderr, "%s: expected '%s' in C order, found %s\n", name, kind, text);
      else
        status = read_exactly(file, to, bytes * count, name);
    }
  } else {
    fprintf(stderr, "%s: is no .npy file\n", name);
  }
  fclose(file);
  return status;
}

int main(int argc, char **argv) {
  void *arena = aligned(model_arena_bytes());
  void *weights = aligned(model_weights_bytes());
  FILE *file;
  if (argc != 2 + MODEL_INPUTS) {
    fprintf(stderr, "usage: %s model.weights @INPUT_NAMES@\n", argv[0]);
    return 2;
  }
  if (!arena || !weights) {
    fprintf(stderr, "not enough memory\n");
    return 5;
  }
  file = fopen(argv[1], "rb");
  if (!file) {
    fprintf(stderr, "%s: cannot be opened\n", argv[1]);
    return 2;
  }
  if (read_exactly(file, weights, model_weights_bytes(), argv[1])) return 2;
  fclose(file);
@READ@
  if (model_run(arena, weights, @ARGUMENTS@) != MODEL_OK) {
    fprintf(stderr, "the model cannot run\n");
    return 1;
  }
@PRINT@
  return 0;
}
"""


def example(emitted: Emitted) -> str:
    """main.c: reads .npy files, refuses those that do not fit, prints the outputs."""
    read, print_ = [], []
    for number, port in enumerate(emitted.inputs):
        size = f"sizeof({port.ctype})"
        read.append(
            f"  {port.ctype} *{port.symbol} = aligned({_bytes(port)});\n"
            f'  if (!{port.symbol} || read_npy(argv[{number + 2}], "{_KINDS[port.dtype]}", {size}, '
            f"{prod(port.shape)}, {port.symbol})) return 2;"
        )
    for port in emitted.outputs:
        read.append(f"  {port.ctype} *{port.symbol} = aligned({_bytes(port)});")
        read.append(f"  if (!{port.symbol}) return 5;")
        mark, cast = ("%.9g", "(double)") if port.dtype.startswith("f") else ("%lld", "(long long)")
        print_.append(
            f"  for (long i = 0; i < {prod(port.shape)}; i++) "
            f'printf("{mark}\\n", {cast}{port.symbol}[i]);'
        )
    symbols = [p.symbol for p in (*emitted.inputs, *emitted.outputs)]
    text = _EXAMPLE.replace("@READ@", "\n".join(read)).replace("@PRINT@", "\n".join(print_))
    names = " ".join(f"{p.symbol}.npy" for p in emitted.inputs)
    return text.replace("@ARGUMENTS@", ", ".join(symbols)).replace("@INPUT_NAMES@", names)


def _bytes(port: Port) -> str:
    return f"{max(prod(port.shape), 1)} * sizeof({port.ctype})"


def cmake(emitted: Emitted) -> str:
    """CMakeLists.txt: a static and a shared library, and the example."""
    flags = " ".join((*FLAGS[1:], *emitted.isa.flags))
    return f"""cmake_minimum_required(VERSION 3.13)
project(model C)
set(CMAKE_C_STANDARD 11)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
add_library(model_static STATIC model.c)
add_library(model_shared SHARED model.c)
set_target_properties(model_static model_shared PROPERTIES OUTPUT_NAME model)
foreach(library model_static model_shared)
  target_compile_options(${{library}} PRIVATE {flags})
  if(UNIX)
    target_link_libraries(${{library}} m)
  endif()
endforeach()
add_executable(example main.c)
target_link_libraries(example model_static)
"""


def readme(emitted: Emitted, checked: str, tuning: Tuning | None = None) -> str:
    """README.md: how to call it, the memory figures, what was verified."""
    rows = [
        f"| {kind} | `{p.name}` | {p.dtype} | {'x'.join(map(str, p.shape)) or 'scalar'} |"
        for kind, ports in (("input", emitted.inputs), ("output", emitted.outputs))
        for p in ports
    ]
    flags = " ".join((*FLAGS, *emitted.isa.flags))
    return f"""# A model in C

`model.c` and `model.h` need a C11 compiler, `memcpy` and libm, nothing else.

```bash
cc {flags} -c model.c
```

| | name | type | shape |
|---|---|---|---|
{chr(10).join(rows)}

The caller gives `model_run` an arena of {emitted.arena_bytes} bytes and the
{len(emitted.weights)} bytes of `model.weights`, both aligned to 64 bytes. The arena holds nothing
between calls: calls with different arenas may run at the same time. No plan for this order of
layers has an arena below {emitted.arena_bound} bytes.

Instructions: {emitted.isa.label}. Verified: {checked}.
{"" if tuning is None else _measured(emitted, tuning)}"""


def tuning_rows(emitted: Emitted, tuning: Tuning) -> list[list[str]]:
    """For each measured geometry: names of its layers, the geometry, the choice, all times."""
    names: dict[str, list[str]] = {}
    for made in emitted.choices:
        if made.key in tuning.layers:
            names.setdefault(made.key, []).append(made.layer)
    rows = []
    for key, layers in names.items():
        found = tuning.layers[key]
        times = ", ".join(f"{name} {t:g}" for name, t in found.microseconds.items())
        rows.append([", ".join(layers), key, found.choice, times])
    return rows


def _measured(emitted: Emitted, tuning: Tuning) -> str:
    bars = str.maketrans("|\n", "/ ")  # which would end a cell
    rows = [
        f"| {' | '.join(cell.translate(bars) for cell in row)} |"
        for row in tuning_rows(emitted, tuning)
    ]
    return f"""
The choices of these layers were measured with {tuning.compiler}; the first of each is the cost
model's own. `direct` sums products, `winograd4` computes tiles of 4 x 4 outputs by Winograd's
algorithm; the number behind is how many vectors wide the tiles of the product are. With
`infertool convert --to c --tuning tuning.json` the same model gives the same files.

| layers | shapes | choice | microseconds of one |
|---|---|---|---|
{chr(10).join(rows)}
"""
