"""onnxsim in a process of its own: `python -P onnxsim_child.py IN OUT MEMORY_BYTES`.

Foreign native code that can crash, loop or take all memory; here it hurts nobody.
"""

from __future__ import annotations

import resource
import sys


def main(source: str, target: str, memory: int) -> None:
    """Simplify a file within a limit on the address space."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    import onnx
    import onnxsim

    # Folding must not blow constants up: what would be larger than this stays computed.
    model, _ = onnxsim.simplify(onnx.load(source), tensor_size_threshold="4KB")
    onnx.save(model, target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
