"""Small fits of plain fastai Learners, with fastai's own loaders and ours, and how they ended."""

import random

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.data import WeightedDL
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import Adam
from fastai.vision.augment import RandTransform
from fastai.vision.core import TensorImage
from helpers import random_images
from torch import nn

from s11_fastai import SaveCheckpoints, get_dls


class StopAfter(Callback):
    """Ends the fit after some training batches, as a signal would, or as a Ctrl-C with `how`."""

    order = SaveCheckpoints.order + 1

    def __init__(self, batches: int, how: type[BaseException] = CancelFitException) -> None:
        self.batches, self.how = batches, how

    def after_batch(self) -> None:
        if self.training and self.train_iter == self.batches:
            self.learn.save_checkpoints.checkpoint()
            raise self.how


def stock_loaders() -> DataLoaders:
    """fastai's own DataLoaders on a list of tensors, shuffled; nothing of ours."""
    rng = torch.Generator().manual_seed(0)
    items = [(torch.randn(6, generator=rng), torch.tensor(i % 3)) for i in range(20)]
    train = DataLoader(items, bs=6, shuffle=True)
    return DataLoaders(train, DataLoader(items[:7], bs=6), device=torch.device("cpu"))


def sliced_loaders() -> DataLoaders:
    return get_dls(random_images(np.random.default_rng(0)), bs=12, device="cpu")


class Noise(RandTransform):
    """A batch transform that draws from the global generator."""

    order = 101  # after Normalize

    def encodes(self, x: TensorImage) -> TensorImage:
        return x + torch.randn_like(x)


def noisy_loaders() -> DataLoaders:
    dls = sliced_loaders()
    dls.add_tfms([Noise(p=1.0)], "after_batch")
    return dls


def weighted_loaders() -> DataLoaders:
    dls = sliced_loaders()
    dls.train = dls.train.new(cls=WeightedDL, wgts=np.arange(1, 41))
    return dls


def learner(loaders) -> Learner:
    """A plain fastai Learner with dropout, batch normalisation and fastai's own Adam."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    dls = loaders()
    n_in = 6 if loaders is stock_loaders else 3 * 32 * 32
    layers = [nn.Flatten(), nn.Linear(n_in, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)]
    model = nn.Sequential(*layers, nn.Linear(8, 3))
    return Learner(dls, model, CrossEntropyLossFlat(), opt_func=Adam, metrics=accuracy)


def fit(learn: Learner, cbs) -> Learner:
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(3, 0.01, cbs=cbs)
    return learn


def state(learn: Learner) -> list:
    recorder = learn.recorder
    weights = {name: value.tolist() for name, value in learn.model.state_dict().items()}
    losses = [float(loss) for loss in recorder.losses]
    return [weights, losses, recorder.lrs, recorder.hps, [list(row) for row in recorder.values]]
