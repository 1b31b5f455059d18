"""Several processes that train as one would: the same batches, steps, learning rates and metrics.

fastai's own way (DistributedTrainer) repeats images so that all parts are equal, multiplies the
batch by the number of processes, and needs CUDA.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from fastai.callback.core import Callback
from fastai.torch_core import get_model
from torch import Tensor, nn
from torch.nn import functional as F

from s11_fastai.data.loader import Shard
from s11_fastai.environment import pick_device
from s11_fastai.errors import S11Error

if TYPE_CHECKING:
    from accelerate import Accelerator


# The others wait while the first one finds the bounds; where it dies, the launcher ends them.
_PATIENCE = timedelta(hours=6)


class Processes:
    """One process alone: what several would do together is nothing here."""

    count, index = 1, 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that alone writes and speaks."""
        return self.index == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag

    def tell(self, value: object) -> None:
        """In the first process: give a value to all others, each of which waits in `hear`."""

    def hear(self) -> object:
        """In every other process: what the first one tells, or None where it ended before."""

    @contextmanager
    def or_tell_none(self) -> Iterator[None]:
        """In the first process: where the block ends before `tell`, the others hear None."""
        yield

    def parallel(self, model: nn.Module) -> nn.Module:
        """The network with its gradients averaged over the processes at every backward pass."""
        return model

    def joined(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        """The parts that the processes hold, one after the other; `sizes` are all their lengths."""
        return part

    def leave(self) -> None:
        """Do nothing together any more; all processes leave at the same time."""


class Launched(Processes):
    """One of several processes.

    They meet when they first do something together. Until then fastai must not notice the others:
    in a range test, which the first process does alone, it would wait for all of them.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.count, self.index = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
        self._told = False
        if find_spec("accelerate") is None:
            raise S11Error('several processes need accelerate: pip install -e ".[distributed]"')

    @cached_property
    def _engine(self) -> Accelerator:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs

        return Accelerator(
            cpu=self.device.type == "cpu",
            mixed_precision="no",  # fastai's callback does that
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
        )

    def any(self, flag: bool) -> bool:
        if flag:
            self._engine.set_trigger()
        return self._engine.check_trigger()

    def tell(self, value: object) -> None:
        self._told = True
        self._broadcast(value)

    def hear(self) -> object:
        return self._broadcast(None)

    def _broadcast(self, value: object) -> object:
        from accelerate.utils import broadcast_object_list

        _ = self._engine
        return broadcast_object_list([value])[0]

    @contextmanager
    def or_tell_none(self) -> Iterator[None]:
        try:
            yield
        finally:
            if not self._told:
                with suppress(RuntimeError):  # the others may be gone; why it ends is elsewhere
                    self.tell(None)
                    self.leave()

    def parallel(self, model: nn.Module) -> nn.Module:
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return self._engine.prepare_model(model)

    def joined(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        most = max(sizes)
        padding = [0, 0] * (part.ndim - 1) + [0, most - len(part)]
        parts = self._engine.gather(F.pad(part, padding)).split(most)
        return torch.cat([each[:size] for each, size in zip(parts, sizes, strict=True)])

    def leave(self) -> None:
        self._engine.end_training()


def join_processes(device: str | None) -> Processes:
    """This process among those of its run; `device` is the flag, and on CUDA each has its own GPU.

    Raises S11Error where accelerate is missing, the launcher's variables are incomplete, or there
    are fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        return Processes(pick_device(device))
    missing = [name for name in ("RANK", "LOCAL_RANK") if name not in os.environ]
    if missing:
        raise S11Error(
            f"WORLD_SIZE asks for several processes, but {' and '.join(missing)} is not set: start "
            "them with accelerate launch or torchrun, or unset WORLD_SIZE"
        )
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind not in ("cpu", "cuda"):
        raise S11Error(f"--device {kind} is for one process: give cpu or cuda, or leave it out")
    if kind == "cpu":
        return Launched(pick_device(kind))
    local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if int(os.environ.get("LOCAL_WORLD_SIZE") or local + 1) > gpus:
        raise S11Error(f"each process needs a GPU, and here are {gpus}: start {gpus} processes")
    torch.cuda.set_device(local)
    return Launched(pick_device(f"cuda:{local}"))


def check_shares(n_images: int, bs: int, count: int) -> None:
    """Raise S11Error where a training batch has fewer images than there are processes."""
    smallest = n_images % bs or bs
    if smallest < count:
        raise S11Error(
            f"{count} processes cannot share a batch of {smallest}, the smallest that --bs {bs} "
            f"makes of {n_images:,} images: start fewer processes or choose another --bs"
        )


class TrainTogether(Callback):
    """Each process takes its share of every batch; all of them see what became of the whole.

    Gradients are those of the mean loss over the whole batch, however unequal the shares are.
    Batch normalisation in training uses each process's own share, or on GPUs the whole batch;
    running statistics are the first process's.
    """

    order = 1  # after the network is on its device and in its order of memory

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def before_fit(self) -> None:
        self.learn.model = self.processes.parallel(self.model)
        self._set_shard(Shard(self.processes.index, self.processes.count))

    def before_batch(self) -> None:
        whole = min(self.dl.bs, self.dl.n - self.iter * self.dl.bs)
        self.sizes = Shard.sizes(whole, self.processes.count)

    def before_backward(self) -> None:
        # The engine takes the mean of the processes' gradients, each of which is a mean itself.
        self.learn.loss_grad = self.loss_grad * (
            len(self.y) * self.processes.count / sum(self.sizes)
        )

    def after_batch(self) -> None:
        """Let whatever records or measures the batch see what one process would."""
        self.learn.pred, y = (self._joined(tensor.detach()) for tensor in (self.pred, self.y))
        self.learn.yb = (y,)
        with torch.no_grad():
            self.learn.loss = self.loss_func(self.pred, y)

    def after_fit(self) -> None:
        self.learn.model = get_model(self.model)
        self._set_shard(Shard())

    def _joined(self, part: Tensor) -> Tensor:
        return self.processes.joined(part.as_subclass(Tensor), self.sizes)

    def _set_shard(self, shard: Shard) -> None:
        for loader in self.dls.loaders:
            loader.shard = shard
