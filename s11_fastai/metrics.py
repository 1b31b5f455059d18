"""How well the network does: the loss that knows log-probabilities, its means, and accuracy.

The sums stay on the device until somebody asks for a value: fetching one waits for every step
that was begun before it, as fastai's own means of the loss do in each.
"""

import torch
from fastai.learner import AvgLoss, AvgSmoothLoss, Learner, Metric
from fastai.losses import BaseLoss
from torch import Tensor, nn


class LogProbLoss(BaseLoss):
    """Negative log-likelihood of log-probabilities (N, C), which knows how to read them."""

    def __init__(self, **kwargs) -> None:
        super().__init__(nn.NLLLoss, **kwargs)

    def activation(self, x: Tensor) -> Tensor:
        """Log-probabilities to probabilities."""
        return x.exp()

    def decodes(self, x: Tensor) -> Tensor:
        """Log-probabilities, or probabilities, to classes."""
        return x.argmax(dim=self.axis)


class MeanLoss(AvgLoss):
    """fastai's mean of the loss over all images."""

    def accumulate(self, learn: Learner) -> None:
        n = len(learn.y)
        self.total = self.total + learn.loss.detach().mean() * n
        self.count += n


class SmoothLoss(AvgSmoothLoss):
    """fastai's exponentially weighted mean of the loss over the last batches."""

    def accumulate(self, learn: Learner) -> None:
        self.count += 1
        loss = learn.loss.detach().mean()
        self.val = torch.lerp(loss, self.val.to(loss), self.beta)


class Accuracy(Metric):
    """The part of all images seen that were classified correctly, counted in whole images."""

    name = "accuracy"

    def reset(self) -> None:
        self.correct, self.total = 0, 0

    def accumulate(self, learn: Learner) -> None:
        self.correct = self.correct + (learn.pred.argmax(dim=-1) == learn.y).sum()
        self.total += len(learn.y)

    @property
    def value(self) -> float | None:
        return int(self.correct) / self.total if self.total else None
