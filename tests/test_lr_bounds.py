import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import TrackerCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fits import learner, sliced_loaders
from helpers import random_images
from test_learner import small_learner
from torch.utils.data import TensorDataset
from writes import watched

from s11_fastai import S11ResNet, find_lr_bounds, s11_learner
from s11_fastai.errors import S11Error
from s11_fastai.lr_bounds import LRBounds, bounds_of, half_of_the_fall, smoothed

LRS = np.geomspace(1e-7, 10, 97)


def curve(half=0.1, start=3.0, low=2.0):
    """Flat at `start`, half-way to `low` at the lr `half`, `low` from ten times that on, a wall."""
    knots = np.log([1e-7, half / 10, half, half * 10, 5, 10])
    return np.interp(np.log(LRS), knots, [start, start, (start + low) / 2, low, low, 4 * start])


@pytest.mark.parametrize("half", [1e-3, 0.02, 0.1])
def test_the_peak_is_eight_times_where_half_of_the_fall_is_made_and_the_end_a_hundredth(half):
    lr_min, lr_max = bounds_of(LRS, curve(half))
    # The curve bends at `half`, between two of its steps.
    assert lr_max == pytest.approx(8 * half, rel=0.02)
    assert lr_min == lr_max / 100
    lr, loss = half_of_the_fall(LRS, curve(half))
    assert (8 * lr, loss) == (lr_max, 2.5)


def test_where_the_loss_rises_again_does_not_matter():
    losses = curve()
    wall = np.where(LRS > 1, np.maximum(losses, 9), losses)
    assert bounds_of(LRS, wall) == bounds_of(LRS, losses)
    assert bounds_of(LRS[:85], losses[:85]) == bounds_of(LRS, losses)


def test_losses_are_smoothed_over_five_steps_and_end_before_the_first_that_is_not_finite():
    assert smoothed([1, 2, 3, 4, 10, 6, 7]) == (2, 2.5, 4, 5, 6, 6.75, 23 / 3)
    assert smoothed([1, 2, 3, np.nan, 5]) == (2, 2, 2)
    assert smoothed([np.inf, 1]) == ()


def test_a_curve_that_falls_at_once_or_is_one_point_has_a_half():
    assert half_of_the_fall([0.1], [2.0]) == (0.1, 2)
    assert half_of_the_fall([0.1, 0.2], [2.0, 2.0]) == (0.1, 2)


def test_a_curve_that_has_only_begun_to_fall_gives_no_bounds():
    losses = np.full(97, 3.0)
    losses[-1] = 2.0
    with pytest.raises(S11Error, match="only begun to fall"):
        bounds_of(LRS, losses)


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        (smoothed([np.nan] * 97), "not finite"),
        (smoothed([*[2.3] * 10, *[np.inf] * 87]), "not finite"),
        (np.full(97, 2.3), "never fell"),
        (np.linspace(2, 9, 97), "never fell"),
        (curve()[:10], "20 are needed; give a larger `num_it`"),
        ([], "20 are needed"),
    ],
)
def test_a_curve_that_gives_no_bounds(losses, says):
    with pytest.raises(S11Error, match=says) as error:
        bounds_of(LRS[: 97 if says == "not finite" else len(losses)], losses)
    assert str(error.value).endswith("give `lr_max`")


def state(learn) -> list:
    """Everything that training depends on, as something that compares."""
    optimiser = learn.opt.state_dict() if learn.opt else {}
    momenta = [s["momentum_buffer"] for s in optimiser.get("state", {}).values()]
    return [
        [t.tolist() for t in (*learn.model.state_dict().values(), *momenta)],
        [(type(cb), cb.learn is learn) for cb in learn.cbs],
        learn.path,
        [m.training for m in learn.model.modules()],
        [(dl.epoch, dl.rng.getstate()) for dl in learn.dls.loaders],
        random.getstate(),
        [str(part) for part in np.random.get_state()],
        torch.get_rng_state().tolist(),
        [p.grad is None for p in learn.model.parameters()],
        getattr(learn.recorder, "lrs", None),
        [learn.recorder.smooth_loss.count, str(learn.recorder.smooth_loss.value)],
        [cb.run for cb in learn.cbs],
    ]


def fit(learn):
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, 0.05)


class DrawsFromEveryGenerator(Callback):
    def before_step(self):
        random.random()
        np.random.rand()
        torch.rand(1)


def test_it_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = random_images(np.random.default_rng(0))
    learn = small_learner(images, cbs=DrawsFromEveryGenerator())
    for trained in (False, True):
        if trained:
            fit(learn)
        before = state(learn)
        bounds = find_lr_bounds(learn)
        assert state(learn) == before
        assert len(bounds.lrs) == len(bounds.losses) > 20
        assert bounds.lr_min < bounds.lr_max
    assert not list(tmp_path.iterdir())


def torch_loaders(images):
    """PyTorch's own, of which fastai asks neither a device nor a generator."""
    pixels, labels = torch.from_numpy(images.train.images), torch.from_numpy(images.train.labels)
    pairs = TensorDataset(pixels.permute(0, 3, 1, 2).float() / 255, labels)
    return DataLoaders(*(torch.utils.data.DataLoader(pairs, 10, shuffle=s) for s in (True, False)))


def loaders_without_a_device(images):
    pixels, labels = map(torch.from_numpy, images.train)
    pairs = list(zip(pixels.permute(0, 3, 1, 2).float() / 255, labels, strict=True))
    return DataLoaders.from_dsets(pairs, pairs[:9], bs=10)


@pytest.mark.parametrize("loaders", [torch_loaders, loaders_without_a_device])
def test_it_needs_no_loaders_of_ours(images, loaders):
    torch.manual_seed(0)
    dls = loaders(images)
    assert getattr(dls, "device", None) is None
    stock = Learner(dls, S11ResNet(3, 1), CrossEntropyLossFlat())
    for learn in (stock, s11_learner(dls, S11ResNet(3, 1))):
        before = [p.tolist() for p in learn.model.parameters()]
        bounds = find_lr_bounds(learn)
        assert bounds.lr_min < bounds.lr_max
        assert [p.tolist() for p in learn.model.parameters()] == before


def test_training_is_the_same_to_the_bit_with_and_without_it(images):
    with_it, without = small_learner(images), small_learner(images)
    find_lr_bounds(with_it)
    fit(with_it)
    fit(without)
    assert state(with_it)[0] == state(without)[0]


def test_it_leaves_no_trace_when_it_fails(images):
    class Fails(Callback):
        def before_step(self):
            if self.train_iter == 7:
                raise RuntimeError("out of memory")

    class OfFitsAlone(Callback):
        def before_fit(self):
            self.run = not hasattr(self.learn, "lr_finder")

    learn = small_learner(images, cbs=OfFitsAlone())
    before = state(learn)
    with learn.added_cbs(Fails()), pytest.raises(RuntimeError, match="out of memory"):
        find_lr_bounds(learn)
    assert state(learn) == before


def test_nan_in_a_real_test_is_a_clear_error_without_a_trace(images):
    learn = small_learner(images)
    learn.model.fc.weight.data[:] = torch.nan
    with pytest.raises(S11Error, match="not finite"):
        find_lr_bounds(learn)
    assert torch.isnan(learn.model.fc.weight).all()


def test_what_is_kept_of_the_curve_ends_before_nan(images):
    class Diverges(Callback):
        steps = 0

        def after_loss(self):
            self.steps += 1
            if self.steps > 60:
                self.learn.loss = self.loss * torch.nan

    bounds = find_lr_bounds(small_learner(images, cbs=Diverges()))
    assert len(bounds.losses) == len(bounds.lrs) == 60
    assert np.isfinite(bounds.losses).all()


def test_too_few_steps_in_a_real_test(images):
    with pytest.raises(S11Error, match="20 are needed"):
        find_lr_bounds(small_learner(images), num_it=10)


def test_a_test_without_a_batch_is_told(images):
    learn = small_learner(images)
    learn.dls.train = learn.dls.train.new(bs=64, drop_last=True)
    with pytest.raises(S11Error, match="has no batch, as there are fewer images than `bs`"):
        find_lr_bounds(learn)


@pytest.mark.parametrize("given", [{"lr_min": 0.0}, {"lr_max": -0.1}, {"lr_max": float("inf")}])
def test_a_given_bound_that_no_training_can_have_is_refused(given):
    with pytest.raises(S11Error, match=f"`{next(iter(given))}` must be a finite number above 0"):
        find_lr_bounds(None, **given)


def test_given_bounds_in_the_wrong_order_are_refused(images):
    with pytest.raises(S11Error, match=r"`lr_min` 0.2 must be below `lr_max` 0.1"):
        find_lr_bounds(small_learner(images), 0.2, 0.1)
    with pytest.raises(S11Error, match=r"`lr_min` 50 is not below .* found: give a lower `lr_min`"):
        find_lr_bounds(small_learner(images), 50.0)


def test_a_given_peak_skips_the_test_and_the_cycle_ends_at_a_hundredth_of_it(images, monkeypatch):
    learn = small_learner(images)
    found = find_lr_bounds(learn)
    low = find_lr_bounds(learn, 1e-5)
    assert (low.lr_min, low.lr_max, low.lrs) == (1e-5, found.lr_max, found.lrs)
    monkeypatch.setattr(learn, "fit", lambda *_, **__: pytest.fail("the range test ran"))
    assert find_lr_bounds(learn, 0.01, 0.1) == LRBounds(0.01, 0.1)
    assert find_lr_bounds(learn, lr_max=5.0) == LRBounds(0.05, 5.0)


def test_it_is_fastais_range_test(images):
    class KeepsLosses(Callback):
        def before_fit(self):
            self.losses = []

        def after_batch(self):
            self.losses.append(self.loss.item())

    ours, theirs = small_learner(images), small_learner(images)
    bounds, keeps = find_lr_bounds(ours), KeepsLosses()
    with theirs.no_bar(), theirs.added_cbs(keeps):
        theirs.lr_find(show_plot=False, suggest_funcs=None)
    assert list(bounds.lrs) == theirs.recorder.lrs
    assert bounds.losses == smoothed(keeps.losses)
    assert (bounds.lr_min, bounds.lr_max) == bounds_of(bounds.lrs, bounds.losses)


def test_nothing_is_written_anywhere_and_other_callbacks_know_that_it_is_no_training(
    images, monkeypatch
):
    class Tracks(TrackerCallback):
        """As fastai's EarlyStopping and SaveModel do."""

        def before_fit(self):
            super().before_fit()
            assert not self.run

    learn = small_learner(images, cbs=Tracks("train_loss"))
    find_lr_bounds(learn)  # Python keeps what it compiles for torch's first step
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is asked for once
    learn.path = Path("/nowhere")
    with watched(Path("/")) as written:
        find_lr_bounds(learn)
    assert written == []


def test_bounds_are_one_short_line_at_a_prompt():
    found = LRBounds(0.00123456, 0.4, tuple(LRS), tuple(curve()))
    assert repr(found) == ("LRBounds(lr_min=0.001235, lr_max=0.4, a range test of 97 steps)")
    assert repr(LRBounds(0.1, 0.2)) == "LRBounds(lr_min=0.1, lr_max=0.2, given by hand)"


def test_the_log_of_a_learners_fits_stays_as_it_is(tmp_path):
    learn = learner(sliced_loaders)
    learn.path = tmp_path
    learn.add_cb(CSVLogger())
    with learn.no_bar():
        learn.fit(1, 0.01)
        before = (tmp_path / "history.csv").read_bytes()
        find_lr_bounds(learn, num_it=30)
        assert (tmp_path / "history.csv").read_bytes() == before
        learn.fit(2, 0.01)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3
