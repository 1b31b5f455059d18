"""The least that a training step can be; it imports nothing but torch and the network."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn
from torch.nn import functional as F

from s11_fastai.model import S11ResNet
from s11_fastai.sources.imageset import SIDE


def bare_step(n_classes: int, width: int, bs: int, compiled: bool = False) -> Callable[[], None]:
    """The network and its optimiser, channels last, over and over on one batch of noise."""
    model = S11ResNet(n_classes, width).to(memory_format=torch.channels_last)
    if compiled:
        model.compile()
    x = torch.randn(bs, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    y = torch.randint(n_classes, (bs,))
    opt = torch.optim.SGD(
        model.parameters(), lr=0.004, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    return lambda: update(model, opt, x, y)


def update(model: nn.Module, opt: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    """One step of training."""
    F.nll_loss(model(x), y).backward()
    opt.step()
    opt.zero_grad()


def in_a_thread(step: Callable[[], None]) -> Callable[[], None]:
    """The step, always in one other thread.

    The fits run in threads of their own, to which the allocator of memory gives other pools than
    to the main one; so all sides do.
    """
    pool = ThreadPoolExecutor(1)
    return lambda: pool.submit(step).result()
