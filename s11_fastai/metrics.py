"""How well the network does: means of its loss, and accuracy.

The sums stay on the device until somebody asks for a value: fetching one waits for every step
that was begun before it, as fastai's own means of the loss do in each.
"""

import torch
from fastai.learner import AvgLoss, AvgSmoothLoss, Learner, Metric
from fastai.losses import BaseLoss
from fastai.torch_core import find_bs
from torch import Tensor, nn


def loss_module(learn: Learner) -> nn.Module | None:
    """The module that computes the loss, also within one of fastai's `BaseLoss`, or None for a
    plain function. It may learn, and then is as much of the training as the network."""
    loss = learn.loss_func
    found = loss.func if isinstance(loss, BaseLoss) else loss
    return found if isinstance(found, nn.Module) else None


class MeanLoss(AvgLoss):
    """fastai's mean of the loss over all images."""

    total: Tensor | float
    count: int

    def accumulate(self, learn: Learner) -> None:
        n = find_bs(learn.yb)
        self.total = self.total + learn.loss.detach().mean() * n
        self.count += n


class SmoothLoss(AvgSmoothLoss):
    """fastai's exponentially weighted mean of the loss over the last batches."""

    val: Tensor

    def accumulate(self, learn: Learner) -> None:
        self.count += 1
        loss = learn.loss.detach().mean()
        self.val = torch.lerp(loss, self.val.to(loss), self.beta)


class Accuracy(Metric):
    """The part of all images seen that were classified correctly, counted in whole images.

    Labels may be (n,) or (n, 1).
    """

    name = "accuracy"

    def reset(self) -> None:
        self.correct, self.total = 0, 0

    def accumulate(self, learn: Learner) -> None:
        said, truth = learn.pred.argmax(dim=-1).flatten(), learn.y.flatten()
        self.correct = self.correct + (said == truth).sum()
        self.total += len(truth)

    @property
    def value(self) -> float | None:
        return int(self.correct) / self.total if self.total else None
