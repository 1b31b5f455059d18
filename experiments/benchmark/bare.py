"""The least that a training step can be; it imports nothing but torch and the network."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from weakref import finalize

import torch
from torch import nn
from torch.nn import functional as F

from s11_fastai.model import S11ResNet

_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


def bare_step(
    n_classes: int,
    width: int,
    bs: int,
    precision: str,
    device: torch.device,
    compiled: bool = False,
    side: int = 32,
) -> Callable[[], None]:
    """The network and its optimiser, channels last, over and over on one batch of noise."""
    model = S11ResNet(n_classes, width).to(device).to(memory_format=torch.channels_last)
    if compiled:
        model.compile()
    x = torch.randn(bs, 3, side, side, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(n_classes, (bs,), device=device)
    update = updating(model, precision, device, as_the_project=True)
    return lambda: update(x, y)


def updating(
    model: nn.Module, precision: str, device: torch.device, as_the_project: bool = False
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """One step of training on a batch: forward in the precision, loss and update in float32.

    The update is plain SGD with momentum, or as the project's, with Nesterov's and fused on CUDA.
    """
    opt = torch.optim.SGD(
        model.parameters(),
        lr=0.004,
        momentum=0.9,
        weight_decay=5e-4,
        nesterov=as_the_project,
        fused=(as_the_project and device.type == "cuda") or None,
    )
    low = precision != "fp32"
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def update(x: torch.Tensor, y: torch.Tensor) -> None:
        with torch.autocast(device.type, _LOW.get(precision), enabled=low):
            out = model(x)
        scaler.scale(F.nll_loss(out.float(), y)).backward()
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()

    return update


def in_a_thread(step: Callable[[], None]) -> Callable[[], None]:
    """The step, always in one other thread, which ends once nobody can ask for a step any more.

    The fits run in threads of their own, to which the allocator of memory gives other pools than
    to the main one; so all sides do. It is no ThreadPoolExecutor: a process that is forked in one's
    thread, as DataLoader's workers are, fails as it ends, since it would wait for that thread.
    """
    word: SimpleQueue[bool] = SimpleQueue()
    report: SimpleQueue[BaseException | None] = SimpleQueue()

    def steps() -> None:
        while word.get():
            try:
                step()
                report.put(None)
            except BaseException as error:
                report.put(error)

    def one() -> None:
        word.put(True)
        error = report.get()
        if error is not None:
            raise error

    finalize(one, word.put, False)
    Thread(target=steps, daemon=True).start()
    return one
