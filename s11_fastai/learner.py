"""Loss, optimiser, metrics and callbacks around the network: a fastai Learner."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import NamedTuple

import fastai.vision.learner  # noqa: F401 - how to show pictures with what was predicted
import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback, CancelEpochException
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.callback.schedule import ParamScheduler
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from fastcore.foundation import L
from torch import nn

from s11_fastai.data import as_image
from s11_fastai.metrics import Accuracy, LogProbLoss, MeanLoss, SmoothLoss
from s11_fastai.model import S11ResNet
from s11_fastai.schedule import linear_one_cycle


class Position(NamedTuple):
    """A place in a fit: the epoch, and how many of its training batches are done, both from 0."""

    epoch: int
    batch: int


class S11Learner(Learner):
    """A fastai Learner whose one cycle is made of straight lines, and whose fit can begin midway.

    `start` is where the next fit begins; a callback may set it in its `before_fit`.
    """

    start = Position(0, 0)

    def describe(self) -> str:
        """One line: the network and its number of parameters."""
        return f"{type(self.model).__name__}, {n_parameters(self.model):,} parameters"

    def predict(self, item: object, **kwargs) -> tuple:
        """fastai's `predict` for one picture: (class name, class, probabilities).

        `item` is a path, a PIL image or a uint8 array, or the index of one of the Learner's images.
        """
        return super().predict(item if isinstance(item, Integral) else as_image(item), **kwargs)

    def fit_one_cycle(
        self,
        n_epoch: int,
        lr_max: float | None = None,
        div: float = 25.0,
        div_final: float = 25.0,
        pct_start: float = 5 / 24,
        wd: float | None = None,
        moms: Sequence[float] | None = None,
        cbs: Callback | Sequence[Callback] | None = None,
        reset_opt: bool = False,
        start_epoch: int = 0,
    ) -> None:
        """fastai's `fit_one_cycle` with linear ramps in place of cosines, in float64.

        The lr goes from `lr_max / div` up to `lr_max` at `pct_start` of the steps and down to
        `lr_max / div_final`. Momentum stays the optimiser's; `moms`, three values, gives it the
        same shape.
        """
        lr_max = self.lr if lr_max is None else lr_max
        scheds = {"lr": _ramps(pct_start, lr_max / div, lr_max, lr_max / div_final)}
        if moms is not None:
            scheds["mom"] = _ramps(pct_start, *moms)
        cbs = [ParamScheduler(scheds), *L(cbs)]
        self.fit(n_epoch, wd=wd, cbs=cbs, reset_opt=reset_opt, start_epoch=start_epoch)

    # fastai's loops over epochs and over batches, which begin at `start`. Its own way,
    # SkipToEpoch, leaves empty rows in the recorder and cannot begin within an epoch.

    def _do_fit(self) -> None:
        try:
            for epoch in range(self.start.epoch, self.n_epoch):
                self.epoch = epoch
                self._with_events(self._do_epoch, "epoch", CancelEpochException)
                self.start = Position(0, 0)
        finally:
            self.start = Position(0, 0)

    def all_batches(self) -> None:
        self.n_iter = len(self.dl)
        first = self.start.batch if self.dl is self.dls.train else 0
        for i, batch in enumerate(self.dl, first):
            self.one_batch(i, batch)


def s11_learner(
    dls: DataLoaders,
    model: nn.Module | None = None,
    *,
    momentum: float = 0.9,
    wd: float = 5e-4,
    **kwargs,
) -> S11Learner:
    """A Learner for images of `dls`: SGD with Nesterov momentum, NLL loss, accuracy on both parts.

    `model` gives log-probabilities (by default S11ResNet for the classes of `dls`); `wd` is
    applied to every parameter; `kwargs` go to fastai's Learner. On CUDA it trains in mixed
    precision: bfloat16 where the card computes in it, else float16 with a scaled loss.
    """
    model = S11ResNet(dls.c) if model is None else model
    on_cuda = torch.device(dls.device).type == "cuda"
    sgd = partial(torch.optim.SGD, momentum=momentum, nesterov=True, fused=on_cuda or None)
    learn = S11Learner(
        dls,
        model,
        loss_func=LogProbLoss(),
        opt_func=partial(OptimWrapper, opt=sgd),
        metrics=Accuracy(),
        wd=wd,
        wd_bn_bias=True,
        cbs=[ChannelsLast(), EpochOfLoader(), LossesToCPU(), *L(kwargs.pop("cbs", None))],
        **kwargs,
    )
    recorder = learn.recorder
    recorder.train_metrics, recorder.loss, recorder.smooth_loss = True, MeanLoss(), SmoothLoss()
    if on_cuda:
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        learn.add_cb(MixedPrecision(AMPMode.BF16 if bf16 else AMPMode.FP16))
    return learn


def n_parameters(model: nn.Module) -> int:
    """The number of trainable values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class EpochOfLoader(Callback):
    """Tells the training DataLoader which epoch it is, from which its randomness follows."""

    def before_train(self) -> None:
        if hasattr(self.dls.train, "set_epoch"):
            self.dls.train.set_epoch(self.epoch, self.learn.start.batch)


class LossesToCPU(Callback):
    """Fetches the recorder's losses when the fit is over, for fastai's pictures of them."""

    def after_fit(self) -> None:
        if self.recorder.losses:
            self.recorder.losses = list(torch.stack(self.recorder.losses).cpu().unbind())


def _ramps(pct_start: float, start: float, middle: float, end: float) -> Callable[[float], float]:
    return lambda pct: float(linear_one_cycle(pct, start, middle, end, pct_start))
