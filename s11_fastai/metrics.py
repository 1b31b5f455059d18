"""How well the network does: the loss that knows log-probabilities, and accuracy."""

from fastai.learner import Learner, Metric
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


class Accuracy(Metric):
    """The part of all images seen that were classified correctly, counted in whole images."""

    name = "accuracy"

    def reset(self) -> None:
        self.correct, self.total = 0, 0

    def accumulate(self, learn: Learner) -> None:
        # Stays on the device.
        self.correct = self.correct + (learn.pred.argmax(dim=-1) == learn.y).sum()
        self.total += len(learn.y)

    @property
    def value(self) -> float | None:
        return int(self.correct) / self.total if self.total else None
