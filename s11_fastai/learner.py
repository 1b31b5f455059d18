"""Loss, optimiser, metrics and callbacks around the network: a fastai Learner."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import fastai.vision.learner  # noqa: F401 - how to show pictures with what was predicted
import numpy as np
import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.callback.schedule import ParamScheduler
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner, Recorder
from fastai.losses import CrossEntropyLossFlat
from fastcore.foundation import L
from numpy.typing import ArrayLike
from torch import nn
from torch.amp import GradScaler, autocast

from s11_fastai.data.items import Picture
from s11_fastai.environment import pick_precision
from s11_fastai.errors import S11Error
from s11_fastai.interpret import whole_float32
from s11_fastai.metrics import Accuracy, MeanLoss, SmoothLoss
from s11_fastai.model import S11ResNet
from s11_fastai.optimizer import TorchOptimizer
from s11_fastai.schedule import linear_one_cycle
from s11_fastai.sources import ImageSet


class S11Learner(Learner):
    """A fastai Learner whose one cycle goes in straight lines, and which evaluates in float32."""

    def describe(self) -> str:
        """One line: the network and its number of parameters."""
        return f"{type(self.model).__name__}, {n_parameters(self.model):,} parameters"

    @property
    def precision(self) -> str:
        """What the network computes in while it is trained: "fp32", "bf16" or "fp16"."""
        found = [cb.amp_mode.value for cb in self.cbs if isinstance(cb, MixedPrecision)]
        return found[-1] if found else "fp32"

    def to_bf16(self) -> "S11Learner":
        """fastai's `to_bf16`, on any device: train in bfloat16 from now on."""
        return self.to_fp32().add_cb(TrainInLowPrecision("bf16"))

    def to_fp16(self, **kwargs) -> "S11Learner":
        """fastai's `to_fp16`, on any device: train in float16 with a loss that is scaled.

        `kwargs` go to `torch.amp.GradScaler`.
        """
        return self.to_fp32().add_cb(TrainInLowPrecision("fp16", **kwargs))

    def to_channelslast(
        self, use_amp: bool = True, amp_mode: str | AMPMode = AMPMode.FP16, **kwargs
    ) -> "S11Learner":
        """fastai's `to_channelslast`, for after `to_contiguous`: a Learner begins channels-last.

        Where there is something to do, `use_amp` adds low precision too.
        """
        if not self._grab_cbs(ChannelsLast):
            self.add_cb(ChannelsLast())
            if use_amp and self.precision == "fp32":
                self.add_cb(TrainInLowPrecision(amp_mode, **kwargs))
        return self

    def predict(
        self, item: Any, rm_type_tfms: int | None = None, with_input: bool = False
    ) -> tuple:
        """fastai's `predict` for one picture: (class name, class, probabilities).

        `item` is any picture that `sources.picture.read_picture` reads: a path, bytes, an open
        file, a PIL image, an array or a tensor; cut and resized as the Learner's images are. A
        whole number is the index of one of those images: first come the evaluated ones, so that
        places among them, as `interpret.misclassified` gives, are indices too, then the training
        ones. Raises S11Error, of one line, for anything else.
        """
        images = getattr(self.dls.valid, "images", None)
        if isinstance(images, ImageSet):  # a loader of fastai's asks its datasets for the name
            item = Picture(images)(item)  # an error comes before anything has begun
        return super().predict(item, rm_type_tfms, with_input)

    def fit_one_cycle(
        self,
        n_epoch: int,
        lr_max: float | slice | Sequence[float] | np.ndarray | None = None,
        div: float = 25.0,
        div_final: float = 25.0,
        pct_start: float = 5 / 24,
        wd: float | None = None,
        moms: Sequence[float | Sequence[float] | np.ndarray] | None = None,
        cbs: Callback | Sequence[Callback] | None = None,
        reset_opt: bool = False,
        start_epoch: int = 0,
    ) -> None:
        """fastai's `fit_one_cycle` with linear ramps in place of cosines, in float64.

        The lr goes from `lr_max / div` up to `lr_max` at `pct_start` of the steps and down to
        `lr_max / div_final`. As in fastai, `lr_max` is one lr for all groups of parameters, a value
        for each, or a slice that is spread over them; None is the Learner's `lr`. `moms`, three
        values, gives the momentum the same shape; None is the Learner's, and where that is None
        too, as s11_learner makes it, momentum stays the optimiser's. Raises S11Error for a
        `pct_start` that is no part of the steps.
        """
        if not 0 <= pct_start <= 1:
            raise S11Error(f"`pct_start` must be from 0 to 1, as 5 / 24, not {pct_start:g}")
        if self.opt is None:
            self.create_opt()
        self.opt.set_hyper("lr", self.lr if lr_max is None else lr_max)
        peaks = np.array([group["lr"] for group in self.opt.hypers])
        scheds = {"lr": _ramps(pct_start, peaks / div, peaks, peaks / div_final)}
        moms = self.moms if moms is None else moms
        if moms is not None:
            scheds["mom"] = _ramps(pct_start, *moms)
        cbs = [ParamScheduler(scheds), *L(cbs)]
        self.fit(n_epoch, wd=wd, cbs=cbs, reset_opt=reset_opt, start_epoch=start_epoch)

    def _do_fit(self) -> None:
        try:
            super()._do_fit()
        finally:
            for cb in self._grab_cbs(TrainInLowPrecision):
                cb.leave_autocast()  # an interrupted or failed forward pass has not left it
            for cb in self._grab_cbs(LossesToCPU):
                cb.after_train()

    def _do_epoch_validate(self, ds_idx: int = 1, dl: DataLoader | None = None) -> None:
        with whole_float32():
            super()._do_epoch_validate(ds_idx, dl)


def s11_learner(
    dls: DataLoaders,
    model: nn.Module | None = None,
    *,
    momentum: float = 0.9,
    wd: float = 5e-4,
    label_smoothing: float = 0.2,
    precision: str = "auto",
    **kwargs,
) -> S11Learner:
    """A Learner for images of `dls`: SGD with Nesterov momentum, cross-entropy, accuracy.

    `model` gives log-probabilities or logits (by default S11ResNet for the classes of `dls`);
    `wd` is applied to every parameter, unless `wd_bn_bias=False`; `label_smoothing` is the part of
    each label that is spread evenly over all classes; `kwargs` go to fastai's Learner and replace
    what is chosen here, as `loss_func`, `opt_func` and `metrics`. `precision` is that of the
    network in training: "auto", "fp32", "bf16" or "fp16", as `pick_precision` reads it. Evaluation
    is always in float32, so that the accuracy of the same weights does not depend on it. Raises
    S11Error as `pick_precision` does.
    """
    model = S11ResNet(dls.c) if model is None else model
    # fastai's loaders may have none: then the network stays where it is.
    device = torch.device(getattr(dls, "device", None) or next(model.parameters()).device)
    on_cuda = device.type == "cuda"
    # Left out, `fused` and `foreach` are None, and callbacks that log numbers fail on that.
    sgd = partial(
        torch.optim.SGD, momentum=momentum, nesterov=momentum > 0, fused=on_cuda, foreach=False
    )
    own = {
        "loss_func": CrossEntropyLossFlat(label_smoothing=label_smoothing),
        "opt_func": partial(TorchOptimizer, opt=sgd),
        "metrics": Accuracy(),
        "moms": None,
        "wd_bn_bias": True,
    }
    cbs = [ChannelsLast(), LossesToCPU(), *L(kwargs.pop("cbs", None))]
    learn = S11Learner(dls, model, wd=wd, cbs=cbs, **own | kwargs)
    for recorder in learn._grab_cbs(Recorder):
        recorder.loss, recorder.smooth_loss = MeanLoss(), SmoothLoss()
    picked = pick_precision(precision, device)
    if picked != "fp32":
        learn.add_cb(TrainInLowPrecision(picked))
    return learn


def n_parameters(model: nn.Module) -> int:
    """The number of trainable values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class TrainInLowPrecision(MixedPrecision):
    """fastai's MixedPrecision for every device, in training alone and without the loss.

    The network's layers compute in `amp_mode`, "bf16" or "fp16"; what they give is float32 again,
    and so are loss, metrics, weights and all evaluation.
    """

    name = "low_precision"  # under its own some of fastai's callbacks refuse to work
    run_valid = False
    computing = False

    def __call__(self, event_name: str) -> object:
        if event_name == "before_fit":  # a fit that was interrupted has not put `run` back
            others = self.learn._grab_cbs(MixedPrecision).filter(lambda cb: cb is not self)
            self.run = not others  # until the fit ends, if somebody has added fastai's own
        return super().__call__(event_name)

    def before_fit(self) -> None:
        device = next(self.model.parameters()).device.type
        half = self.amp_mode.value == "fp16"
        # A cache would outlive the step within somebody's autocast, or one that was interrupted.
        dtype = torch.float16 if half else torch.bfloat16
        self.autocast = autocast(device, dtype, cache_enabled=False)
        self.learn.scaler = GradScaler(device, **self.kwargs | {"enabled": half})
        self.scales = L()

    def before_batch(self) -> None:
        self.autocast.__enter__()
        self.computing = True

    def after_pred(self) -> None:
        self.leave_autocast()
        super().after_pred()

    def after_loss(self) -> None:
        """Nothing is left to do: fastai's own would leave autocast here."""

    def leave_autocast(self) -> None:
        """Compute in float32 again; nothing where that is so already."""
        if self.computing:
            self.autocast.__exit__(None, None, None)
        self.computing = False

    # Whoever cancels a forward pass, what follows it is not in this autocast.
    after_cancel_batch = after_cancel_train = after_cancel_epoch = leave_autocast


class LossesToCPU(Callback):
    """Fetches the recorder's losses after each epoch, for fastai's pictures of them.

    A Learner does it once more when a fit ends, however it ends.
    """

    def after_train(self) -> None:
        for recorder in self.learn._grab_cbs(Recorder):
            recorder.losses = [loss.cpu() for loss in recorder.losses]


def _ramps(
    pct_start: float, start: ArrayLike, middle: ArrayLike, end: ArrayLike
) -> Callable[[float], list[float]]:
    """The cycle through three knots, each a number or a value for each group of parameters."""
    groups = np.broadcast(*map(np.atleast_1d, (start, middle, end)))
    knots = [(float(a), float(b), float(c)) for a, b, c in groups]
    return lambda pct: [float(linear_one_cycle(pct, a, b, c, pct_start)) for a, b, c in knots]
