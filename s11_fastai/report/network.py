"""The layers of a run's network, for its page."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from s11_fastai.model import S11ResNet


class Layer(NamedTuple):
    """One child of the network: its name, the modules in it, the shape of what it gives for one
    image, without the batch, and the number of its parameters."""

    name: str
    modules: str
    shape: tuple[int, ...]
    parameters: int


@lru_cache(maxsize=4)
def layers(n_classes: int, width: int, side: int = 32) -> tuple[Layer, ...]:
    """Those of an S11ResNet for images of `side` pixels a side, by a pass that computes nothing."""
    found: list[Layer] = []

    def note(name: str):
        def hook(module: nn.Module, _: object, out: torch.Tensor) -> None:
            parameters = sum(p.numel() for p in module.parameters())
            found.append(Layer(name, _modules(module), tuple(out.shape[1:]), parameters))

        return hook

    with torch.device("meta"), torch.no_grad():
        model = S11ResNet(n_classes, width).eval()
        for name, child in model.named_children():
            child.register_forward_hook(note(name))
        model(torch.empty(1, 3, side, side))
    return tuple(found)


def _modules(module: nn.Module) -> str:
    """The names of a layer's modules, in their order; of a residual one those of its branch."""
    if isinstance(module, nn.Sequential):
        return ", ".join(map(_modules, module))
    branch = getattr(module, "branch", None)
    name = type(module).__name__
    return name if branch is None else f"X + ({_modules(branch)})"
