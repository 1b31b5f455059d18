import math
from contextlib import nullcontext
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.callback.fp16 import MixedPrecision
from fastai.data.core import DataLoaders
from fastai.data.transforms import IntToFloatTensor, ToTensor
from fastai.interpret import ClassificationInterpretation
from fastcore.foundation import L
from helpers import random_images
from torch.amp import GradScaler

from s11_fastai import S11ResNet, get_dls, s11_learner
from s11_fastai.errors import S11Error
from s11_fastai.learner import TrainInLowPrecision
from s11_fastai.metrics import Accuracy, MeanLoss
from s11_fastai.schedule import linear_one_cycle


def small_learner(images, bs=16, width=2, **kwargs):
    torch.manual_seed(0)
    dls = get_dls(images, bs=bs, device="cpu")
    return s11_learner(dls, S11ResNet(dls.c, width), **kwargs)


class Steps(Callback):
    """Keeps what the optimiser is told at each step."""

    order = 80

    def before_fit(self):
        self.hypers = []

    def before_step(self):
        self.hypers.append(dict(self.opt.hypers[-1]))


def test_a_learner_without_fastais_callbacks_or_momentum_trains(images):
    dls = get_dls(images, bs=16, device="cpu")
    bare = s11_learner(dls, S11ResNet(3, 1), default_cbs=False, cbs=TrainEvalCallback())
    before = [p.tolist() for p in bare.model.parameters()]
    bare.fit(1)
    assert [p.tolist() for p in bare.model.parameters()] != before
    learn = s11_learner(dls, S11ResNet(3, 1), momentum=0)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert {h["mom"] for h in learn.opt.hypers} == {0}


@pytest.fixture(scope="module")
def fitted():
    """24 epochs of 98 steps, as in the assignment, on a tiny network that sees one image a step."""
    images = random_images(np.random.default_rng(0), n_train=98, n_valid=3)
    learn, steps = small_learner(images, bs=1, width=1), Steps()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(
            24, 0.4, div=0.4 / 3e-4, div_final=0.4 / 3e-4, pct_start=5 / 24, cbs=steps
        )
    return learn, steps


def test_the_fit_takes_2352_steps_that_meet_both_bounds(fitted):
    lrs = np.array([h["lr"] for h in fitted[1].hypers])
    assert len(lrs) == 2352
    assert abs(lrs[0] - 3e-4) <= math.ulp(3e-4)
    assert abs(lrs[490] - 0.4) <= math.ulp(0.4)
    assert lrs.argmax() == 490
    assert lrs.min() >= 3e-4 - math.ulp(3e-4)
    slope = (0.4 - 3e-4) / (2352 - 490)
    assert lrs[-1] - 3e-4 <= slope * (1 + 1e-9)


def test_the_fits_ramps_are_straight(fitted):
    lrs = np.array([h["lr"] for h in fitted[1].hypers])
    up = 3e-4 + (0.4 - 3e-4) * np.arange(491) / 490
    down = 3e-4 + (0.4 - 3e-4) * np.arange(2352 - 490, 0, -1) / (2352 - 490)
    np.testing.assert_allclose(lrs[:491], up, rtol=1e-6)
    np.testing.assert_allclose(lrs[490:], down, rtol=1e-6)


def test_momentum_stays_the_optimisers_and_wd_is_everywhere(fitted):
    learn, steps = fitted
    assert {h["mom"] for h in steps.hypers} == {0.9}
    assert {h["wd"] for h in steps.hypers} == {5e-4}
    (group,) = learn.opt.opt.param_groups
    assert isinstance(learn.opt.opt, torch.optim.SGD)
    assert group["nesterov"]
    assert len(group["params"]) == len(list(learn.model.parameters()))


def test_plot_sched_draws_the_ramps(fitted):
    matplotlib.use("Agg")
    learn, steps = fitted
    learn.recorder.plot_sched()
    (line,) = matplotlib.pyplot.gcf().axes[0].get_lines()
    np.testing.assert_array_equal(line.get_ydata(), [h["lr"] for h in steps.hypers])
    matplotlib.pyplot.close("all")


def test_moms_give_momentum_the_same_shape(images):
    learn, steps = small_learner(images), Steps()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(4, 0.1, pct_start=0.5, moms=(0.95, 0.85, 0.95), cbs=steps)
    momenta = [h["mom"] for h in steps.hypers]
    assert (momenta[0], min(momenta), momenta[6]) == (0.95, 0.85, 0.85)


def in_three_groups(model) -> list[list]:
    parts = slice(1), slice(1, 3), slice(3, None)
    return [
        [p for child in list(model.children())[part] for p in child.parameters()] for part in parts
    ]


@pytest.mark.parametrize(
    ("lr_max", "peaks"),
    [
        (0.4, [0.4, 0.4, 0.4]),
        ([0.001, 0.02, 0.4], [0.001, 0.02, 0.4]),
        (slice(0.4), [0.04, 0.04, 0.4]),
        (slice(0.001, 0.1), [0.001, 0.01, 0.1]),
    ],
)
def test_each_group_of_parameters_goes_through_a_cycle_of_its_own(images, lr_max, peaks):
    learn, seen = small_learner(images, splitter=in_three_groups), []

    class Keep(Callback):
        order = 80

        def before_step(self):
            seen.append([group["lr"] for group in self.opt.hypers])

    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(4, lr_max, div=7, div_final=70, pct_start=0.25, cbs=Keep())
    lrs, given = np.array(seen), np.array([group["lr"] for group in peaks_of(learn, lr_max)])
    np.testing.assert_allclose(given, peaks, rtol=1e-12)
    assert (lrs[0] == given / 7).all()
    assert (lrs[3] == given).all()
    assert (lrs.max(axis=0) == given).all()
    straight = [linear_one_cycle(np.arange(12) / 12, g / 7, g, g / 70, 0.25) for g in given]
    np.testing.assert_allclose(lrs.T, straight, rtol=1e-12)


def peaks_of(learn, lr_max) -> list[dict]:
    """The groups as fastai sets them."""
    learn.opt.set_hyper("lr", lr_max)
    return learn.opt.hypers


def test_fine_tune_trains_the_last_group_and_then_all(images):
    learn, seen = small_learner(images, splitter=in_three_groups), []

    class Keep(Callback):
        def before_fit(self):
            seen.append([p.requires_grad for p in self.model.parameters()])

    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(1, cbs=Keep())
    filters = [p.ndim > 1 for p in learn.model.parameters()]  # batch norms are trained all along
    last = len(filters) - len(in_three_groups(learn.model)[-1])
    assert [seen[0][i] for i in np.flatnonzero(filters)] == [
        i >= last for i in np.flatnonzero(filters)
    ]
    assert all(seen[1])


def test_no_value_of_the_optimiser_is_none(images):
    learn = small_learner(images)
    learn.create_opt()
    assert None not in learn.opt.hypers[0].values()


def test_low_precision_survives_a_change_of_memory_order(images):
    learn = small_learner(images, precision="fp32")
    assert learn.to_channelslast() is learn
    assert learn.precision == "fp32"  # it is channels-last already
    learn.to_contiguous()
    learn.model.channels_last = True  # a network's own attribute is no callback
    assert learn.to_channelslast(amp_mode="bf16").precision == "bf16"
    assert type(learn.low_precision) is TrainInLowPrecision


@pytest.mark.parametrize("pct_start", [5, -0.1, float("nan")])
def test_a_peak_that_is_no_part_of_the_steps_is_refused(images, pct_start):
    with pytest.raises(S11Error, match="`pct_start` must be from 0 to 1, as 5 / 24, not"):
        small_learner(images).fit_one_cycle(24, 0.4, pct_start=pct_start)


def test_momenta_given_to_the_learner_are_those_of_one_cycle(images):
    learn = small_learner(images, moms=(0.95, 0.85, 0.95))
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, 0.01)
    momenta = learn.recorder.hps["mom"]
    assert momenta[0] == 0.95
    assert min(momenta) < 0.87


def test_nothing_in_the_package_chooses_a_backend():
    from pathlib import Path

    import s11_fastai

    for file in Path(s11_fastai.__file__).parent.rglob("*.py"):
        text = file.read_text()
        assert "matplotlib.use" not in text
        # Importing pyplot may choose one, so only a figure that is to be shown in a window does.
        assert text.count("matplotlib.pyplot") == (file.name == "style.py")


def test_one_step_is_torchs_sgd_on_the_mean_smoothed_cross_entropy(images):
    learn = small_learner(images, bs=40, precision="fp32")
    torch.manual_seed(0)
    bare = S11ResNet(3, 2).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        bare.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    learn.dls.train.set_epoch(0)
    x, y = learn.dls.train.one_batch()
    loss = torch.nn.functional.cross_entropy(
        bare(x.as_subclass(torch.Tensor)), y.as_subclass(torch.Tensor), label_smoothing=0.2
    )
    loss.backward()
    optimiser.step()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.1)
    for (name, a), b in zip(
        bare.state_dict().items(), learn.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_accuracy_and_loss_are_over_every_evaluated_image(images):
    learn = small_learner(images, bs=10)  # 24 images: the last batch is short
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.05)
    metrics = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1], strict=False))
    learn.model.eval()
    x = torch.cat([x for x, _ in learn.dls.valid]).as_subclass(torch.Tensor)
    y = torch.from_numpy(images.valid.labels)
    with torch.no_grad():
        out = learn.model(x)
    assert metrics["accuracy"] == (out.argmax(1) == y).sum().item() / 24
    loss = torch.nn.functional.cross_entropy(out, y, label_smoothing=0.2).item()
    assert metrics["valid_loss"] == pytest.approx(loss, rel=1e-5)
    assert list(metrics) == ["train_loss", "valid_loss", "accuracy"]


def test_accuracy_counts_labels_in_a_column_once():
    metric = Accuracy()
    metric.reset()
    metric.accumulate(SimpleNamespace(pred=torch.eye(3), y=torch.tensor([[0], [1], [0]])))
    assert metric.value == 2 / 3


def test_fastais_interpretation_knows_the_loss(images):
    learn = small_learner(images)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.05)
        probabilities, _, classes = learn.get_preds(with_decoded=True)
        found = ClassificationInterpretation.from_learner(learn)
        assert found.confusion_matrix().sum() == 24
        assert learn.predict(0)[0] in images.classes
    torch.testing.assert_close(probabilities.sum(1), torch.ones(24))
    assert torch.equal(classes, probabilities.argmax(1))


def test_weights_and_batches_are_channels_last(images):
    learn = small_learner(images)

    class Look(Callback):
        def before_batch(self):
            assert self.xb[0].is_contiguous(memory_format=torch.channels_last)
            assert self.model.layer3[0].weight.is_contiguous(memory_format=torch.channels_last)

    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.01, cbs=Look())


def test_each_epoch_shows_other_batches(images):
    learn, seen = small_learner(images, bs=40), []

    class Keep(Callback):
        def before_batch(self):
            if self.training:
                seen.append(self.x.clone())

    with learn.no_bar(), learn.no_logging():
        learn.fit(2, lr=0.01, cbs=Keep())
        learn.fit(1, lr=0.01, cbs=Keep())
    assert not torch.equal(seen[0], seen[1])
    assert not any(torch.equal(seen[2], before) for before in seen[:2])  # the count goes on
    learn.dls.train.set_epoch(1)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.01, cbs=Keep())
    assert torch.equal(seen[3], seen[1])


def test_it_names_a_picture_also_with_fastais_own_loaders_over_our_datasets(images):
    ours = get_dls(images, bs=8, device="cpu")
    dls = DataLoaders.from_dsets(
        ours.train_ds,
        ours.valid_ds,
        bs=8,
        after_item=ToTensor,
        after_batch=[IntToFloatTensor],
        device="cpu",
    )
    learn = s11_learner(dls, S11ResNet(3, 1))
    with learn.no_bar():
        name, *_ = learn.predict(images.valid.images[0])
    assert name in images.classes


def test_where_somebody_adds_fastais_own_mixed_precision_it_alone_acts(images, monkeypatch):
    """It is for CUDA alone: here nothing but its part in the fit is looked at."""

    class Other(MixedPrecision):
        def before_fit(self) -> None:
            acts.append("other")
            self.autocast = nullcontext()
            self.learn.scaler, self.scales = GradScaler("cpu", enabled=False), L()

    def acted(self) -> None:
        acts.append("own")
        before(self)

    acts: list[str] = []
    before = TrainInLowPrecision.before_batch
    monkeypatch.setattr(TrainInLowPrecision, "before_batch", acted)
    learn = small_learner(images, bs=40, precision="bf16")
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.01)
        assert acts == ["own"]
        learn.fit(1, 0.01, cbs=Other())
        assert acts == ["own", "other"]
        learn.fit(1, 0.01)
    assert acts == ["own", "other", "own"]
    assert learn.precision == "bf16"


def test_the_loss_is_the_mean_over_items_with_several_targets_too():
    loss, learn = MeanLoss(), SimpleNamespace(loss=torch.tensor(1.0), yb=(torch.zeros(4),) * 2)
    loss.reset()
    loss.accumulate(learn)
    learn.loss, learn.yb = torch.tensor(6.0), (torch.zeros(1),) * 2
    loss.accumulate(learn)
    assert float(loss.value) == 2.0
