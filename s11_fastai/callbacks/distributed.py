"""Several processes that train as one would: the same batches, steps, learning rates and metrics.

The processes are those that accelerate launch or torchrun has started; one alone needs neither
accelerate nor torch.distributed. fastai's own way (DistributedTrainer) repeats images so that all
shards are equal, multiplies the batch by the number of processes, and needs CUDA.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

import torch
from fastai.callback.core import Callback
from fastai.torch_core import get_model
from torch import Tensor, nn
from torch.nn import functional as F

from s11_fastai.callbacks.checkpoint import batches_done
from s11_fastai.data.loader import Shard
from s11_fastai.environment import pick_device
from s11_fastai.errors import S11Error
from s11_fastai.signals import StopSignals

if TYPE_CHECKING:
    from accelerate import Accelerator

# The others wait while the main process finds the bounds; where it dies, the launcher ends them.
_PATIENCE = timedelta(hours=6)
Value = TypeVar("Value")


class Processes:
    """One process alone: it is the main one, and collective operations do nothing."""

    world_size, rank = 1, 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that alone writes and speaks."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag

    def from_main(self, make: Callable[[], Value]) -> Value:
        """What `make` gives in the main process, in every process.

        The others wait for it. Where the main process ends before it has made the value, it has
        said why, and the others end with exit code 0.
        """
        return make()

    def main_first(self, make: Callable[[], Value]) -> Value:
        """What `make` gives in each process, in the others once it is done in the main one."""
        return make()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network with its gradients averaged over the processes at every backward pass."""
        return model

    def gather(self, shard: Tensor, sizes: Sequence[int]) -> Tensor:
        """The shards of all processes, one after the other; `sizes` are all their lengths."""
        return shard

    def close(self) -> None:
        """End what the processes do together; all of them call it at the same place."""

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Launched(Processes):
    """One of several processes.

    Where the main process ends before it has said what the others wait for, it tells them to end.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.world_size, self.rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
        # Whether the others wait for a word of the main process, and whether all have parted.
        self.waiting, self.closed = True, False
        if find_spec("accelerate") is None:
            raise S11Error('several processes need accelerate: pip install -e ".[distributed]"')

    @cached_property
    def _accelerator(self) -> Accelerator:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs

        return Accelerator(
            cpu=self.device.type == "cpu",
            mixed_precision="no",  # fastai's callback does that
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
        )

    def any(self, flag: bool) -> bool:
        if flag:
            self._accelerator.set_trigger()
        return self._accelerator.check_trigger()

    def from_main(self, make: Callable[[], Value]) -> Value:
        told = self._broadcast([make()] if self.is_main else None)
        if told is None:
            self.close()
            raise SystemExit(0)
        return told[0]

    def main_first(self, make: Callable[[], Value]) -> Value:
        own = make() if self.is_main else None
        self.from_main(lambda: None)
        return own if own is not None else make()

    def _broadcast(self, value: list | None) -> list | None:
        from accelerate.utils import broadcast_object_list

        _ = self._accelerator
        return broadcast_object_list([value])[0]

    def wrap(self, model: nn.Module) -> nn.Module:
        self.waiting = False
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return self._accelerator.prepare_model(model)

    def gather(self, shard: Tensor, sizes: Sequence[int]) -> Tensor:
        most = max(sizes)
        padding = [0, 0] * (shard.ndim - 1) + [0, most - len(shard)]
        shards = self._accelerator.gather(F.pad(shard, padding)).split(most)
        return torch.cat([each[:size] for each, size in zip(shards, sizes, strict=True)])

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._accelerator.free_memory()  # the wrapped network must go before the group does
            self._accelerator.end_training()

    def __exit__(self, *_: object) -> None:
        if self.is_main and self.waiting:
            with suppress(RuntimeError):  # the others may be gone; why it ends is said elsewhere
                self._broadcast(None)
                self.close()


def join_processes(device: str | None, signals: StopSignals | None = None) -> Processes:
    """This process among those of its run; on CUDA each has its own GPU.

    One that waits for the main process cannot stop alone: a signal to it waits in `signals`.

    Raises S11Error where accelerate is missing, the launcher's variables are incomplete, several
    processes want another device than "cpu" or "cuda", or there are fewer GPUs than processes.
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
        raise S11Error(f"`device` {kind} is for one process: give cpu or cuda, or leave it out")
    if signals is not None and int(os.environ["RANK"]) > 0:
        signals.be_patient()
    if kind == "cpu":
        return Launched(pick_device(kind))
    local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if int(os.environ.get("LOCAL_WORLD_SIZE") or local + 1) > gpus:
        fewer = f"start {gpus} processes, or " if gpus else ""
        raise S11Error(f"each process needs a GPU, and here are {gpus}: {fewer}give `device` cpu")
    torch.cuda.set_device(local)
    return Launched(pick_device(f"cuda:{local}"))


def check_shards(n_images: int, bs: int, world_size: int) -> None:
    """Raise S11Error where a training batch has fewer images than there are processes."""
    smallest = n_images % bs or bs
    if smallest < world_size:
        raise S11Error(
            f"{world_size} processes cannot share a batch of {smallest}, the smallest that `bs` "
            f"{bs} makes of {n_images:,} images: start fewer processes or choose another `bs`"
        )


class ShardBatches(Callback):
    """Each process takes its shard of every batch; all of them see what became of the whole.

    Gradients are those of the mean loss over the whole batch, however unequal the shards are.
    Batch normalisation in training uses each process's own shard, or on GPUs the whole batch;
    running statistics are the main process's.
    """

    order = 1  # after the network is on its device and in its order of memory

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def before_fit(self) -> None:
        self.learn.model = self.processes.wrap(self.model)
        self._set_shard(Shard(self.processes.rank, self.processes.world_size))

    def before_batch(self) -> None:
        done = batches_done(self.learn) if self.training else self.iter
        whole = min(self.dl.bs, self.dl.n - done * self.dl.bs)
        self.sizes = Shard.sizes(whole, self.processes.world_size)

    def before_backward(self) -> None:
        # The engine takes the mean of the processes' gradients, each of which is a mean itself.
        self.learn.loss_grad = self.loss_grad * (
            len(self.y) * self.processes.world_size / sum(self.sizes)
        )

    def after_batch(self) -> None:
        """Let whatever records or measures the batch see what one process would."""
        self.learn.pred, y = (self._gathered(tensor.detach()) for tensor in (self.pred, self.y))
        self.learn.yb = (y,)
        with torch.no_grad():
            self.learn.loss = self.loss_func(self.pred, y)

    def after_fit(self) -> None:
        self.learn.model = get_model(self.model)
        self._set_shard(Shard())

    def _gathered(self, shard: Tensor) -> Tensor:
        return self.processes.gather(shard.as_subclass(Tensor), self.sizes)

    def _set_shard(self, shard: Shard) -> None:
        for loader in self.dls.loaders:
            loader.shard = shard
