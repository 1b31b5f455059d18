"""Tensors and plain values in one safetensors file that shows when it has been damaged."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from s11_fastai.files import write_atomically

# safetensors writes several keys of metadata in any order; one key keeps equal files equal.
_KEY = "sealed"


class Damaged(Exception):
    """A file that is not what was written; the message says in what way."""


def write_sealed(path: Path, tensors: Mapping[str, Tensor], about: object = None) -> None:
    """Write tensors, on whatever device, and `about`, plain values, as a whole file.

    It is an ordinary safetensors file: names, shapes, numbers and text. Raises OSError.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(about, allow_nan=False)
    seal = json.dumps({"about": text, "sha256": _digest(tensors, text)})
    write_atomically(path, save(tensors, {_KEY: seal}))


def read_sealed(path: Path) -> tuple[dict[str, Tensor], object]:
    """The tensors, mapped from the file, and the plain values, once their checksum is right.

    Raises Damaged for anything else than what `write_sealed` wrote, OSError for no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            seal = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text, expected = seal["about"], seal["sha256"]
        whole = _digest(tensors, text) == expected
    # Before the checksum has been compared, a damaged header can mean nearly anything.
    except (SafetensorError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise Damaged(f"{path.name} is no file of this kind ({type(error).__name__})") from error
    if not whole:
        raise Damaged(f"{path.name} has another checksum than it was written with")
    return tensors, json.loads(text)


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
