"""Two and three processes take the steps that one would, over gloo on the CPU."""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from processes import in_processes
from torch import nn

from s11_fastai import S11ResNet, get_dls, load_images, s11_learner
from s11_fastai.callbacks.distributed import Processes, ShardBatches, join_processes
from s11_fastai.data.loader import Shard
from s11_fastai.errors import S11Error
from s11_fastai.sources import Split

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests fork their processes")


class Watch(Callback):
    """What each step was told and gave: learning rate, gradients, loss."""

    order = 90

    def before_fit(self):
        self.seen = []

    def before_step(self):
        gradients = torch.cat([p.grad.flatten() for p in self.model.parameters()])
        self.seen.append([self.opt.hypers[-1]["lr"], gradients.clone(), None])

    def after_batch(self):
        if self.training:
            self.seen[-1][2] = self.learn.loss.item()


def fit(weighted=True) -> tuple:
    """Two epochs of 203 digits in float64, batch normalisation evaluating: steps and metrics."""
    torch.manual_seed(0)
    digits = load_images("digits")
    train, valid = (
        Split(part.images[:n], part.labels[:n])
        for part, n in ((digits.train, 203), (digits.valid, 65))
    )
    few = replace(digits, train=train, valid=valid)
    dls = get_dls(few, bs=64, device="cpu")  # the last batch has 11 images, of the evaluated 1
    learn, watch = s11_learner(dls, S11ResNet(10, 2).double()), Watch()
    processes = join_processes("cpu")
    together = ShardBatches(processes)
    if not weighted:
        together.before_backward = lambda: None

    class Doubles(Callback):
        order = 50

        def before_batch(self):
            self.learn.xb = tuple(x.double() for x in self.xb)
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, 0.05, cbs=[together, Doubles(), watch])
    processes.close()
    values = [list(row) for row in learn.recorder.values]
    return watch.seen, values, learn.recorder.losses, learn.model.state_dict()


@pytest.fixture(scope="module")
def alone():
    (result,) = in_processes(1, fit)
    return result


@pytest.mark.parametrize("count", [2, 3])
def test_gradients_steps_rates_and_metrics_are_those_of_one_process(alone, count):
    steps, metrics, smoothed, weights = alone
    assert len(steps) == 8
    for own_steps, own_metrics, own_smoothed, own_weights in in_processes(count, fit):
        assert len(own_steps) == len(steps)
        for (lr, gradients, loss), (own_lr, own, own_loss) in zip(steps, own_steps, strict=True):
            assert own_lr == lr
            assert (own - gradients).abs().max() <= 1e-6 * gradients.abs().max()
            assert own_loss == pytest.approx(loss, rel=1e-9)
        for (train_loss, valid_loss, valid), own in zip(metrics, own_metrics, strict=True):
            assert own[2] == valid
            assert own[:2] == pytest.approx([train_loss, valid_loss], rel=1e-6)
        torch.testing.assert_close(own_smoothed, smoothed, rtol=1e-6, atol=0)
        for name, value in weights.items():
            torch.testing.assert_close(own_weights[name], value, rtol=1e-6, atol=1e-9)


def test_without_weights_for_unequal_shares_the_gradients_are_others(alone):
    """The comparison can fail."""
    steps, *_ = alone
    own_steps, *_ = in_processes(3, partial(fit, weighted=False))[0]
    apart = [
        ((own - gradients).abs().max() / gradients.abs().max()).item()
        for (_, gradients, _), (_, own, _) in zip(steps, own_steps, strict=True)
    ]
    assert max(apart) > 1e-3


def test_sizes_are_those_of_the_shares():
    for n in range(12):
        for count in range(1, 6):
            parts = [Shard(i, count).of(np.arange(n)) for i in range(count)]
            assert [len(part) for part in parts] == Shard.sizes(n, count)
            assert np.concatenate(parts).tolist() == list(range(n))


def test_one_process_needs_no_launcher_and_several_need_a_whole_one(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert type(join_processes("cpu")) is Processes
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(S11Error, match="RANK and LOCAL_RANK is not set"):
        join_processes("cpu")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(S11Error, match="`device` mps is for one process"):
        join_processes("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(S11Error, match="needs a GPU, and here are 1: start 1"):
        join_processes(None)
    monkeypatch.setattr("s11_fastai.callbacks.distributed.find_spec", lambda name: None)
    with pytest.raises(S11Error, match=r"pip install -e \"\.\[distributed\]\""):
        join_processes("cpu")
