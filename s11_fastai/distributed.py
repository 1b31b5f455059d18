"""Several processes that train as one would: the same batches, steps, learning rates and metrics.

fastai's own way (DistributedTrainer) repeats images so that all parts are equal, multiplies the
batch by the number of processes, and needs CUDA.
"""

import torch
from fastai.callback.core import Callback
from fastai.torch_core import get_model
from torch import Tensor

from s11_fastai.errors import S11Error
from s11_fastai.loader import Share
from s11_fastai.processes import Processes


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
        self._share(Share(self.processes.index, self.processes.count))

    def before_batch(self) -> None:
        whole = min(self.dl.bs, self.dl.n - self.iter * self.dl.bs)
        self.sizes = Share.sizes(whole, self.processes.count)

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
        self._share(Share())

    def _joined(self, part: Tensor) -> Tensor:
        return self.processes.joined(part.as_subclass(Tensor), self.sizes)

    def _share(self, share: Share) -> None:
        for loader in self.dls.loaders:
            loader.share = share
