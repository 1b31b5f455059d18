"""What a run runs on: device, precision, versions, revision of the code. No host name, no path."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from s11_fastai.errors import S11Error

_PACKAGES = (
    "fastai",
    "torch",
    "torchvision",
    "albumentations",
    "numpy",
    "pillow",
    "safetensors",
    "scikit-learn",
)
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# Of x86, and of ARM.
_CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")


def environment(device: torch.device, precision: str, processes: int = 1) -> dict:
    """A dict for `env.json`; `git_revision` is None where the code is in no checkout of its own."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "device": str(device),
        "device_name": device_name(device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "git_revision": git_revision_of_code(),
    }


def pick_device(name: str | None) -> torch.device:
    """The device called `name`, or by default a GPU where there is one; else the CPU.

    Raises S11Error for a device that is not here.
    """
    here = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name is None:
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if here[kind]))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not here.get(device.type) or not _has_index(device):
        found = ", ".join(kind for kind, available in here.items() if available)
        raise S11Error(f"`device` {name} is not on this computer: choose from {found}")
    return device


def pick_precision(name: str, device: torch.device, cpu: Mapping[str, object] | None = None) -> str:
    """The precision of a training step's network, "fp32", "bf16" or "fp16", for `name`.

    "auto" is what the device computes in: bfloat16 where it has instructions for it, on other
    CUDA cards float16, else float32. A CPU without them computes bfloat16 convolutions far more
    slowly than float32 (pytorch issues 118499, 146508, 183815). `cpu` is what the processor can
    do, by default what `torch.cpu.get_capabilities()` says of this one. Raises S11Error for
    another name, and for bfloat16 on a CUDA card that lacks it.
    """
    if name not in _PRECISIONS:
        raise S11Error(f"`precision` {name} is unknown: choose from {', '.join(_PRECISIONS)}")
    if device.type == "cuda":
        # Of this card: torch.cuda.is_bf16_supported() tells of the current one.
        has_bf16 = bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
        if name == "bf16" and not has_bf16:
            raise S11Error(
                "`precision` bf16: this GPU does not compute in bfloat16; choose fp16 or fp32"
            )
        return ("bf16" if has_bf16 else "fp16") if name == "auto" else name
    if name != "auto":
        return name
    cpu = torch.cpu.get_capabilities() if cpu is None else cpu
    fast = device.type == "cpu" and any(cpu.get(key) for key in _CPU_BF16)
    return "bf16" if fast else "fp32"


def _has_index(device: torch.device) -> bool:
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    return (device.index or 0) < count


def device_name(device: torch.device) -> str:
    """The model of the GPU, or of the CPU with its count of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_model()}, {os.cpu_count()} cores"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_revision_of_code() -> str | None:
    """The commit of the checkout that this code lies in, "-dirty" behind it where it is changed."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True
        )
        found = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
