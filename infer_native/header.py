"""model.h: the interface in C, with names, shapes and types as constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_native.emit import ERRORS, signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.emit import Emitted, Port


def header(emitted: Emitted) -> str:
    """The header; it needs nothing but the standard integer types."""
    errors = "\n".join(f"#define MODEL_ERROR_{name} {code}" for name, code in ERRORS.items())
    return f"""#ifndef MODEL_H
#define MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define MODEL_OK 0
{errors}

#define MODEL_ALIGNMENT 64
#define MODEL_ARENA_BYTES {emitted.arena_bytes}
#define MODEL_WEIGHTS_BYTES {len(emitted.weights)}

{_ports("INPUT", emitted.inputs)}
{_ports("OUTPUT", emitted.outputs)}
/* Bytes of the working memory and of the weights; both must be aligned to MODEL_ALIGNMENT. */
size_t model_arena_bytes(void);
size_t model_weights_bytes(void);

/* Runs the model. The arena holds nothing between calls; calls with different arenas may run at
   the same time. Returns MODEL_OK, or MODEL_ERROR_... before anything was read or written. */
{signature(emitted.inputs, emitted.outputs)};

#ifdef __cplusplus
}}
#endif

#endif
"""


def _ports(kind: str, ports: Sequence[Port]) -> str:
    lines = [f"#define MODEL_{kind}S {len(ports)}"]
    for number, port in enumerate(ports):
        count = 1
        for size in port.shape:
            count *= size
        name = port.name.replace("\\", "\\\\").replace('"', '\\"')
        dims = ", ".join(map(str, port.shape)) or "1"
        prefix = f"MODEL_{kind}{number}"
        lines += [
            f'#define {prefix}_NAME "{name}"',
            f'#define {prefix}_DTYPE "{port.dtype}"',
            f"#define {prefix}_RANK {len(port.shape)}",
            f"#define {prefix}_SHAPE {{{dims}}}",
            f"#define {prefix}_ELEMENTS {count}",
        ]
    return "\n".join(lines) + "\n"
