"""A fit of any fastai Learner that was stopped goes on to the same end, to the bit."""

import copy
from functools import partial

import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.fp16 import NonNativeMixedPrecision
from fastai.callback.tracker import ReduceLROnPlateau, TrackerCallback
from fastai.callback.training import GradientAccumulation, ShortEpochCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import SGD, Adam, Lamb, Optimizer, OptimWrapper, RAdam, ranger, sgd_step
from fastcore.basics import noop
from fits import (
    StopAfter,
    fit,
    learner,
    noisy_loaders,
    sliced_loaders,
    state,
    stock_loaders,
    weighted_loaders,
)
from torch import nn

from s11_fastai import Checkpoints, Resume, SaveCheckpoints, find_lr_bounds
from s11_fastai.callbacks import checkpoint
from s11_fastai.callbacks.recording import RecordEpochs
from s11_fastai.errors import DivergedError, S11Error


# An epoch has four batches of training with either kind of loader.
@pytest.mark.parametrize(
    ("loaders", "batches", "begins"),
    [
        (stock_loaders, 1, (0, 0)),
        (stock_loaders, 6, (1, 0)),  # within an epoch: from the last one's end
        (stock_loaders, 8, (1, 0)),
        (sliced_loaders, 1, (0, 1)),
        (sliced_loaders, 6, (1, 2)),
        (sliced_loaders, 8, (1, 4)),  # evaluation begins again
        (sliced_loaders, 11, (2, 3)),
        (weighted_loaders, 6, (1, 0)),  # whose order is not the loader's own
        (noisy_loaders, 6, (1, 2)),
        (noisy_loaders, 8, (1, 4)),
    ],
)
def test_a_plain_learner_goes_on_to_the_same_end(tmp_path, loaders, batches, begins):
    whole = fit(learner(loaders), [])
    checkpoints = Checkpoints(tmp_path)
    fit(learner(loaders), [SaveCheckpoints(checkpoints.write), StopAfter(batches)])
    found = Checkpoints(tmp_path).newest()
    assert (found["epoch"], found["batch"]) == begins
    resumed = fit(learner(loaders), [Resume(found), SaveCheckpoints(checkpoints.write)])
    assert state(resumed) == state(whole)


def test_a_second_fit_goes_on_from_its_own_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    learn = learner(sliced_loaders)
    fit(learn, [SaveCheckpoints(checkpoints.write)])

    class Kill(Callback):
        def before_batch(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(learn, [SaveCheckpoints(checkpoints.write), Kill()])
    found = Checkpoints(tmp_path).newest()
    assert (found["epoch"], found["batch"]) == (0, 0)


def test_a_buffer_that_was_not_finite_before_the_fit_is_none_that_diverged(tmp_path):
    learn = learner(sliced_loaders)
    learn.model.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
    learn.model.register_buffer("mean", torch.zeros(3))
    fit(learn, [SaveCheckpoints(Checkpoints(tmp_path).write)])
    assert torch.equal(Checkpoints(tmp_path).newest()["model"]["mask"], learn.model.mask)

    class Spoil(Callback):
        def after_epoch(self):
            self.model.mean += torch.inf

    with pytest.raises(DivergedError):
        fit(learn, [Spoil(), SaveCheckpoints(Checkpoints(tmp_path).write)])


def test_in_a_learners_own_callbacks_fits_alone_are_saved(tmp_path):
    saved = []
    learn = learner(sliced_loaders)
    learn.add_cb(SaveCheckpoints(lambda state: saved.append((state["epoch"], state["batch"]))))
    with learn.no_bar(), learn.no_logging():
        learn.validate()
        learn.get_preds()
        find_lr_bounds(learn)
        assert saved == []
        learn.fit_one_cycle(2, 0.01)
        assert saved == [(0, 0), (1, 0), (2, 0)]
        learn.validate()
        learn.get_preds(with_loss=True)
        find_lr_bounds(learn)
    assert saved == [(0, 0), (1, 0), (2, 0)]


def test_a_state_waits_for_a_fit_whatever_comes_before_it(tmp_path):
    whole = fit(learner(sliced_loaders), [])
    checkpoints = Checkpoints(tmp_path)
    fit(learner(sliced_loaders), [SaveCheckpoints(checkpoints.write), StopAfter(6)])
    learn, saved = learner(sliced_loaders), []
    save = SaveCheckpoints(lambda state: saved.append((state["epoch"], state["batch"])))
    learn.add_cbs([Resume(checkpoints.newest()), save])
    with learn.no_bar(), learn.no_logging():
        learn.validate()
        learn.get_preds()
        find_lr_bounds(learn)
    assert state(fit(learn, [])) == state(whole)
    assert saved == [(2, 0), (3, 0)]  # where it begins, it stands already


def test_what_a_model_has_of_a_callbacks_name_is_no_callback(tmp_path):
    def named() -> Learner:
        learn = learner(sliced_loaders)
        for name in ("lr_finder", "gather_preds", "scaler", "resume", "stop_on_divergence"):
            learn.model.register_module(name, nn.Identity())
        return learn

    checkpoints = Checkpoints(tmp_path)
    whole = fit(named(), [])
    fit(named(), [SaveCheckpoints(checkpoints.write), StopAfter(6)])
    again = [Resume(checkpoints.newest()), SaveCheckpoints(checkpoints.write)]
    assert state(fit(named(), again)) == state(whole)
    assert checkpoints.newest()["epoch"] == 3


def test_precision_with_weights_of_its_own_is_refused_with_a_word():
    class Without(NonNativeMixedPrecision):
        before_fit = after_fit = noop  # which asks for a GPU

    with pytest.raises(S11Error, match="NonNativeMixedPrecision trains weights that no checkpoint"):
        fit(learner(sliced_loaders), [Without(), SaveCheckpoints(lambda state: None)])


def test_fastais_trackers_remember_what_they_have_seen(tmp_path):
    def trackers() -> list[Callback]:
        best, patience = TrackerCallback("accuracy", reset_on_fit=True), ReduceLROnPlateau()
        return [best, patience]

    whole, resumed = trackers(), trackers()
    fit(learner(sliced_loaders), whole)
    checkpoints = Checkpoints(tmp_path)
    save = SaveCheckpoints(checkpoints.write)
    fit(learner(sliced_loaders), [*trackers(), save, StopAfter(9)])
    found = checkpoints.newest()
    assert set(found["trackers"]) == {"tracker", "reduce_lr_on_plateau"}
    found["trackers"]["tracker"]["best"] = 2.0  # of the epochs that are over
    fit(learner(sliced_loaders), [Resume(found), *resumed])
    assert resumed[0].best == 2
    assert (resumed[1].best, resumed[1].wait) == (whole[1].best, whole[1].wait)


@pytest.mark.parametrize("opt_func", [Adam, ranger])
def test_the_state_of_fastais_optimiser_lies_as_the_weights_do(tmp_path, opt_func):
    def convolution() -> Learner:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 30 * 30, 3))
        model.to(memory_format=torch.channels_last)
        return Learner(sliced_loaders(), model, CrossEntropyLossFlat(), opt_func=opt_func)

    checkpoints = Checkpoints(tmp_path)
    fit(convolution(), [SaveCheckpoints(checkpoints.write), StopAfter(6)])
    again = [Resume(checkpoints.newest()), SaveCheckpoints(checkpoints.write), StopAfter(7)]
    learn = fit(convolution(), again)
    weights, *_ = learn.opt.all_params()[0]
    assert weights.stride() == (27, 1, 9, 3)
    assert learn.opt.state[weights]["grad_avg"].stride() == weights.stride()
    if opt_func is ranger:
        assert learn.opt.slow_weights[0][0].stride() == weights.stride()


def test_stopped_in_evaluation_and_there_again(tmp_path):
    """The second time no batch of training is left when it begins."""
    whole = fit(learner(sliced_loaders), [])
    checkpoints = Checkpoints(tmp_path)

    class StopInEvaluation(Callback):
        order = SaveCheckpoints.order + 1

        def after_batch(self) -> None:
            if not self.training and self.epoch == 1:
                self.learn.save_checkpoints.checkpoint()
                raise CancelFitException

    for _ in range(2):
        resume = Resume(checkpoints.newest())
        fit(
            learner(sliced_loaders),
            [resume, SaveCheckpoints(checkpoints.write), StopInEvaluation()],
        )
        found = checkpoints.newest()
        assert (found["epoch"], found["batch"]) == (1, 4)
    assert state(fit(learner(sliced_loaders), [Resume(found)])) == state(whole)


def test_short_epochs_show_other_batches_each_and_go_on_to_the_same_end():
    kept = []
    save = SaveCheckpoints(lambda state: kept.append(copy.deepcopy(state)))
    whole = fit(learner(sliced_loaders), [ShortEpochCallback(0.5), save])
    assert [state["epoch"] for state in kept] == [0, 1, 2, 3]
    assert [state["loader"]["epoch"] for state in kept] == [0, 1, 2, 3]
    resumed = fit(learner(sliced_loaders), [Resume(kept[1]), ShortEpochCallback(0.5)])
    assert state(resumed) == state(whole)


def test_the_state_of_another_fit_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    fit(learner(sliced_loaders), [SaveCheckpoints(checkpoints.write), StopAfter(6)])
    longer = learner(sliced_loaders)
    with longer.no_bar(), longer.no_logging():
        with pytest.raises(S11Error, match="is of a fit of 3 epochs, and this one has 5"):
            longer.fit(5, cbs=Resume(checkpoints.newest()))
        longer.model.append(nn.Linear(3, 3))
        with pytest.raises(S11Error, match=r"another network: 5\.bias has shape None"):
            longer.fit(3, cbs=Resume(checkpoints.newest()))


def of_torch(cls: type) -> partial:
    return partial(OptimWrapper, opt=cls)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (Adam, SGD, r"Optimizer of \w+, .*, adam_step there, Optimizer of .*, sgd_step here"),
        (Adam, Lamb, "adam_step there, .*, lamb_step here"),
        (ranger, RAdam, "Lookahead of Optimizer of .*, radam_step there, Optimizer of .* here"),
        (of_torch(torch.optim.SGD), SGD, "OptimWrapper of SGD there, Optimizer of .* here"),
        (
            of_torch(torch.optim.Adam),
            of_torch(torch.optim.AdamW),
            "of Adam there, .* of AdamW here",
        ),
    ],
)
def test_another_optimiser_is_refused_before_anything_is_put_back(tmp_path, before, now, said):
    checkpoints = Checkpoints(tmp_path)
    learn = learner(sliced_loaders)
    learn.opt_func = before
    fit(learn, [SaveCheckpoints(checkpoints.write), StopAfter(6)])
    other = learner(sliced_loaders)
    other.opt_func, weights = now, copy.deepcopy(other.model.state_dict())
    with pytest.raises(S11Error, match=said):
        fit(other, [Resume(checkpoints.newest())])
    assert all(value.equal(weights[name]) for name, value in other.model.state_dict().items())


def test_a_schedule_of_what_the_optimiser_does_not_know_is_none_of_another(tmp_path):
    """fastai notes the momentum of one cycle in an optimiser that has none."""

    def plain() -> Learner:
        learn = learner(sliced_loaders)
        learn.opt_func = partial(Optimizer, cbs=[sgd_step])
        return learn

    whole, checkpoints = fit(plain(), []), Checkpoints(tmp_path)
    fit(plain(), [SaveCheckpoints(checkpoints.write), StopAfter(6)])
    assert state(fit(plain(), [Resume(checkpoints.newest())])) == state(whole)


def test_loaders_may_be_lists_of_batches(tmp_path):
    def listed() -> Learner:
        learn = learner(stock_loaders)
        learn.dls = DataLoaders(*(list(loader) for loader in learn.dls.loaders))
        return learn

    whole, checkpoints = fit(listed(), []), Checkpoints(tmp_path)
    fit(listed(), [SaveCheckpoints(checkpoints.write), StopAfter(6)])
    assert state(fit(listed(), [Resume(checkpoints.newest())])) == state(whole)
    with pytest.raises(S11Error, match="the loss never fell"):  # of noise, as it should be
        find_lr_bounds(listed(), num_it=30)


@pytest.mark.parametrize(
    "wrong",
    [{"optimiser": None}, {"recorder": {}}, {"loader": 5}, {"schedules": [1]}, {"model": []}],
    ids=str,
)
def test_what_is_no_state_of_a_fit_is_refused(tmp_path, wrong):
    """A checksum says that a file is whole, and not who wrote it."""
    checkpoints = Checkpoints(tmp_path)
    fit(learner(sliced_loaders), [SaveCheckpoints(checkpoints.write), StopAfter(6)])
    found = checkpoints.newest() | wrong
    with pytest.raises(S11Error, match="does not belong to this fit") as error:
        fit(learner(sliced_loaders), [Resume(found)])
    assert str(error.value).isprintable()


def test_without_the_generators_the_end_is_another(tmp_path):
    """The comparison can fail: dropout and the stock loader draw from them."""
    whole = fit(learner(stock_loaders), [])
    fit(learner(stock_loaders), [SaveCheckpoints(Checkpoints(tmp_path).write), StopAfter(6)])
    found = Checkpoints(tmp_path).newest()
    found["generators"]["torch"] = torch.Generator().manual_seed(1).get_state()
    assert state(fit(learner(stock_loaders), [Resume(found)])) != state(whole)


def test_no_other_callback_hears_of_the_epochs_that_are_passed_over(tmp_path):
    class Hears(Callback):
        def __init__(self) -> None:
            self.heard = []

        def before_epoch(self) -> None:
            self.heard.append(("before", self.epoch))

        def after_cancel_epoch(self) -> None:
            self.heard.append(("cancelled", self.epoch))

        def after_epoch(self) -> None:
            self.heard.append(("after", self.epoch))

    fit(learner(sliced_loaders), [SaveCheckpoints(Checkpoints(tmp_path).write), StopAfter(9)])
    hears = Hears()
    fit(learner(sliced_loaders), [Resume(Checkpoints(tmp_path).newest()), hears])
    assert hears.heard == [("before", 2), ("after", 2)]


def test_a_fit_whose_epochs_are_all_done_only_ends_and_says_so(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path)
    whole = fit(learner(sliced_loaders), [SaveCheckpoints(checkpoints.write)])
    assert "nothing was left" not in capsys.readouterr().out
    resumed = fit(learner(sliced_loaders), [Resume(checkpoints.newest())])
    assert state(resumed) == state(whole)
    assert "nothing was left to train" in capsys.readouterr().out


def test_fine_tune_which_is_two_fits_is_refused_with_a_word(tmp_path):
    checkpoints = Checkpoints(tmp_path)

    def tune(cbs) -> None:
        learn = learner(sliced_loaders)
        with learn.no_bar(), learn.no_logging():
            learn.fine_tune(3, 0.01, cbs=cbs)

    tune([SaveCheckpoints(checkpoints.write), StopAfter(6)])
    with pytest.raises(S11Error, match="fine_tune is two fits, which cannot be resumed"):
        tune([Resume(checkpoints.newest())])


@pytest.mark.parametrize("opt_func", [Adam, partial(OptimWrapper, opt=torch.optim.Adam)])
def test_a_state_waits_until_a_fit_has_gone_on_from_it_and_can_do_so_twice(tmp_path, opt_func):
    def make() -> Learner:
        learn = learner(sliced_loaders)
        learn.opt_func = opt_func
        return learn

    whole = state(fit(make(), []))
    checkpoints = Checkpoints(tmp_path)
    fit(make(), [SaveCheckpoints(checkpoints.write), StopAfter(6)])
    found, learn = checkpoints.newest(), make()
    resume, save = Resume(found), SaveCheckpoints(checkpoints.write)
    with learn.no_bar(), learn.no_logging():
        with pytest.raises(S11Error, match="of a fit of 3 epochs, and this one has 2"):
            learn.fit_one_cycle(2, 0.01, cbs=[resume, save])
        with pytest.raises(KeyboardInterrupt):
            fit(learn, [resume, save, StopBeforeTraining()])
    assert (Checkpoints(tmp_path).newest()["epoch"], resume.begins) == (1, (1, 2))
    assert state(fit(learn, [resume, save])) == whole
    assert state(fit(make(), [Resume(found)])) == whole


class StopBeforeTraining(Callback):
    def before_train(self) -> None:
        raise KeyboardInterrupt


def test_a_summary_does_not_take_the_state_of_a_fit(tmp_path):
    whole = state(fit(learner(sliced_loaders), []))
    checkpoints = Checkpoints(tmp_path)
    fit(learner(sliced_loaders), [SaveCheckpoints(checkpoints.write), StopAfter(6)])
    learn = learner(sliced_loaders)
    learn.add_cb(Resume(checkpoints.newest()))
    with learn.no_bar(), learn.no_logging():
        find_lr_bounds(learn)
        learn.create_opt()
        learn.summary()
        learn.tta(n=1)
    assert state(fit(learn, [])) == whole


def test_what_a_fit_went_on_from_says_nothing_of_the_next(tmp_path):
    checkpoints, counted = Checkpoints(tmp_path), []

    class Counts(Callback):
        def before_batch(self) -> None:
            counted.append(self.iter)

    fit(learner(sliced_loaders), [SaveCheckpoints(checkpoints.write), StopAfter(2)])
    learn, resume = learner(sliced_loaders), Resume(checkpoints.newest())
    fit(learn, [resume])
    fit(learn, [resume, Counts()])
    assert counted == [0, 1, 2, 3, 0, 1] * 3


def test_resuming_from_nothing_is_beginning():
    assert state(fit(learner(sliced_loaders), [Resume(None)])) == state(
        fit(learner(sliced_loaders), [])
    )


def test_a_callbacks_own_state_goes_along(tmp_path):
    """RecordEpochs' rows, and those of anybody's callback that has a state_dict."""

    class Counts(Callback):
        order = 20

        def __init__(self) -> None:
            self.n = 0

        def after_batch(self) -> None:
            self.n += self.training

        def state_dict(self):
            return {"n": self.n}

        def load_state_dict(self, state):
            self.n = state["n"]

    def callbacks():
        return [Counts(), RecordEpochs(), GradientAccumulation(1)]

    whole = callbacks()
    fit(learner(sliced_loaders), whole)
    saver = SaveCheckpoints(Checkpoints(tmp_path).write)
    fit(learner(sliced_loaders), [*callbacks(), saver, StopAfter(6)])
    resumed = callbacks()
    fit(learner(sliced_loaders), [*resumed, Resume(Checkpoints(tmp_path).newest())])
    assert resumed[0].n == whole[0].n == 12
    assert resumed[1].steps == whole[1].steps
    assert [row[:-1] for row in resumed[1].history] == [row[:-1] for row in whole[1].history]
    assert [row.train_accuracy * 40 for row in whole[1].history] == [
        pytest.approx(round(row.train_accuracy * 40)) for row in whole[1].history
    ]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("pct_train", "x"),
        ("generators", []),
        ("generators.torch", 5),
        ("generators.numpy", []),
        ("generators.numpy.1", torch.zeros(0)),
        ("generators.python.0", True),
        ("loader.epoch", -1),
        ("loader.first_batch", []),
        ("recorder.smooth_loss.count", 10**400),
        ("recorder.smooth_loss.value", "x"),
        ("recorder.losses", torch.tensor(0.0)),
        ("recorder.lrs", torch.zeros(2, dtype=torch.complex64)),
        ("callbacks.record_epochs.epoch", 5),
        ("callbacks.record_epochs.epoch.batches", [[None] * 4]),
        ("callbacks.record_epochs.epoch.seen", "x"),
        ("callbacks.record_epochs.history", [[1, 2]]),
    ],
)
def test_a_state_with_something_else_in_it_is_one_line(tmp_path, place, value):
    saver = SaveCheckpoints(Checkpoints(tmp_path).write)
    fit(learner(sliced_loaders), [RecordEpochs(), saver, StopAfter(6)])
    state = inner = Checkpoints(tmp_path).newest()
    *path, last = (int(key) if key.isdigit() else key for key in place.split("."))
    for key in path:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(S11Error, match="does not belong to this fit") as error:
        fit(learner(sliced_loaders), [RecordEpochs(), Resume(state)])
    assert "\n" not in str(error.value)


def test_a_lack_of_memory_is_no_fault_of_the_state(tmp_path, monkeypatch):
    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    saver = SaveCheckpoints(Checkpoints(tmp_path).write)
    fit(learner(sliced_loaders), [saver, StopAfter(6)])
    monkeypatch.setattr(checkpoint, "load_generator_state", full)
    with pytest.raises(torch.OutOfMemoryError):
        fit(learner(sliced_loaders), Resume(Checkpoints(tmp_path).newest()))


def test_checkpoints_come_by_the_clock(tmp_path):
    minutes, written = iter(range(1000)), []
    saver = SaveCheckpoints(
        lambda state: written.append((state["epoch"], state["batch"])),
        minutes=3,
        clock=lambda: 60.0 * next(minutes),
    )
    fit(learner(sliced_loaders), [saver])
    assert written == [(0, 0), (0, 3), (1, 0), (1, 3), (2, 0), (2, 3), (3, 0)]


def test_weights_that_are_not_finite_are_not_saved():
    class Spoils(Callback):
        def after_step(self) -> None:
            next(self.learn.model.parameters()).data[0] = float("nan")

    saver = SaveCheckpoints(lambda state: None, minutes=0)
    with pytest.raises(DivergedError, match="the weights became infinite or NaN by step 1"):
        fit(learner(sliced_loaders), [saver, Spoils()])
