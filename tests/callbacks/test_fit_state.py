"""What of a fit goes along into a checkpoint, beside weights and optimiser."""

import copy
from collections.abc import Callable
from functools import partial

import fastai.data.load
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import CSVLogger, ShowGraphCallback
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import TrackerCallback
from fastai.callback.training import GradientAccumulation, ShortEpochCallback
from fastai.data.core import DataLoaders
from fastai.distributed import DistributedDL
from fastai.learner import Learner
from fastai.losses import BaseLoss
from fastai.metrics import F1Score
from fastai.optimizer import Adam, OptimWrapper
from fits import StopAfter, fit, learner, sliced_loaders, state, stock_loaders
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from s11_fastai import Resume, SaveCheckpoints, find_lr_bounds
from s11_fastai.errors import S11Error
from s11_fastai.generators import load_loader_generator_state, loader_generator_state


def stopped(learn: Learner, batches: int, cbs=()) -> dict:
    """The newest state of a fit that is stopped after some batches."""
    kept: list[dict] = []
    save = SaveCheckpoints(lambda state: kept.append(copy.deepcopy(state)))
    fit(learn, [*cbs, save, StopAfter(batches)])
    return kept[-1]


def goes_on(make: Callable[[], Learner], cbs: Callable[[], list[Callback]], batches: int) -> bool:
    """Whether a fit that was stopped goes on to the same end."""
    whole = fit(make(), cbs())
    found = stopped(make(), batches, cbs())
    return state(fit(make(), [Resume(found), *cbs()])) == state(whole)


@pytest.mark.parametrize("loaders", [stock_loaders, sliced_loaders])
@pytest.mark.parametrize("batches", [5, 8])
def test_gradients_that_accumulate_go_along(loaders, batches):
    """The optimiser steps at each third batch or so, and epochs have four."""
    bs = 6 if loaders is stock_loaders else 12
    assert goes_on(lambda: learner(loaders), lambda: [GradientAccumulation(3 * bs)], batches)


def test_another_schedule_is_refused():
    found = stopped(learner(sliced_loaders), 6)
    learn = learner(sliced_loaders)
    with learn.no_bar(), learn.no_logging():
        with pytest.raises(S11Error, match=r"schedule of lr \(up to .* there, .* here\): give"):
            learn.fit_one_cycle(3, 0.02, cbs=Resume(found))
        with pytest.raises(S11Error, match="does not belong to this fit"):
            learn.fit(3, 0.01, cbs=Resume(found))
        with pytest.raises(S11Error, match=r"schedule of mom \(up to 0\.95 there, 0\.9 here\)"):
            learn.fit_one_cycle(3, 0.01, moms=(0.9, 0.9, 0.9), cbs=Resume(found))
        learn.fit_one_cycle(3, 0.01, cbs=Resume(found))


def test_schedules_of_several_values_are_compared_too():
    def make() -> Learner:
        learn = learner(sliced_loaders)
        learn.splitter = lambda model: [list(model[1].parameters()), list(model[4].parameters())]
        return learn

    found: list[dict] = []
    save = SaveCheckpoints(lambda state: found.append(copy.deepcopy(state)))
    learn = make()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(3, slice(0.01, 0.02), cbs=[save, StopAfter(6)])
        assert len(found[-1]["schedules"][0]["curves"]["lr"]) == 18
        with pytest.raises(S11Error, match="another schedule of lr"):
            make().fit_one_cycle(3, slice(0.01, 0.03), cbs=Resume(found[-1]))
        make().fit_one_cycle(3, slice(0.01, 0.02), cbs=Resume(found[-1]))


def test_any_schedule_that_fastai_can_follow_can_be_saved():
    """It asks for none at its very end, where this table has no entry."""

    def fit_tabled(cbs) -> Learner:
        table = np.linspace(0.01, 0.001, 7)
        scheduler = ParamScheduler({"lr": lambda part: [table[int(part * len(table))]]})
        learn = learner(sliced_loaders)
        with learn.no_bar(), learn.no_logging():
            learn.fit(3, 0.01, cbs=[scheduler, *cbs])
        return learn

    kept: list[dict] = []
    save = SaveCheckpoints(lambda state: kept.append(copy.deepcopy(state)))
    fit_tabled([save, StopAfter(6)])
    assert state(fit_tabled([Resume(kept[-1])])) == state(fit_tabled([]))


def test_gradients_left_over_from_an_earlier_fit_are_none_of_the_next():
    whole = fit(learner(sliced_loaders), [])
    found = stopped(learner(sliced_loaders), 6)
    learn = learner(sliced_loaders)
    learn.create_opt()
    for p in learn.model.parameters():
        p.grad = torch.ones_like(p)
    assert state(fit(learn, [Resume(found)])) == state(whole)


def test_what_is_frozen_within_a_fit_stays_so():
    class Freezes(Callback):
        def after_epoch(self) -> None:
            self.model[1].requires_grad_(self.epoch != 0)

    assert goes_on(lambda: learner(sliced_loaders), lambda: [Freezes()], 6)
    learn = learner(sliced_loaders)
    learn.add_cb(Freezes())
    with learn.no_bar(), learn.no_logging():
        find_lr_bounds(learn, num_it=30)
    assert all(p.requires_grad for p in learn.model.parameters())


@pytest.mark.parametrize("opt_func", [Adam, partial(OptimWrapper, opt=torch.optim.AdamW)])
def test_weights_that_have_lost_their_part_in_the_loss_go_on_alike(opt_func):
    """fastai's optimisers step with a gradient of zero, as momentum and decay do; PyTorch's not."""

    class Alone(Callback):
        def after_pred(self) -> None:
            if self.epoch > 0:
                self.learn.pred = self.pred.detach() + self.model[4].bias

    def make() -> Learner:
        learn = learner(sliced_loaders)
        learn.opt_func = opt_func
        return learn

    assert goes_on(make, lambda: [Alone()], 6)


@pytest.mark.parametrize("of_fastai", [False, True])
def test_a_loss_that_learns_goes_along(of_fastai):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, pred: Tensor, y: Tensor) -> Tensor:
            return nn.functional.cross_entropy(self.scale * pred, y)

    def make() -> Learner:
        learn = learner(sliced_loaders)
        learn.loss_func = BaseLoss(Scaled) if of_fastai else Scaled()
        learn.splitter = lambda model: [*model.parameters(), scale_of(learn)]
        return learn

    def scale_of(learn: Learner) -> nn.Parameter:
        return learn.loss_func.func.scale if of_fastai else learn.loss_func.scale

    for cbs in (list, lambda: [GradientAccumulation(36)]):
        assert goes_on(make, cbs, 6)
    learn = fit(make(), [])
    before = scale_of(learn).item()
    assert before != 1
    with learn.no_bar(), learn.no_logging():
        find_lr_bounds(learn, num_it=30)
    assert scale_of(learn) == before


def test_a_loader_that_only_counts_epochs_goes_on_from_an_epochs_end():
    """As accelerate's and some with a sampler of several processes do."""

    class Counts(fastai.data.load.DataLoader):
        def set_epoch(self, epoch: int) -> None: ...

    def make() -> Learner:
        learn = learner(stock_loaders)
        items = list(learn.dls.train.dataset)
        learn.dls.loaders[0] = Counts(items, bs=6, shuffle=True)
        return learn

    assert goes_on(make, list, 6)


def test_the_generator_of_fastais_loader_for_several_processes_goes_along():
    loader = DistributedDL(stock_loaders().train, rank=0, world_size=2, device="cpu")
    before = loader_generator_state([loader])
    first = loader.dl.rng.random()
    load_loader_generator_state([loader], before)
    assert loader.dl.rng.random() == first


def test_a_modules_own_state_may_be_no_tensor():
    class Counts(nn.Identity):
        def get_extra_state(self) -> dict[str, int]:
            return {"n": 1}

        def set_extra_state(self, state: dict[str, int]) -> None: ...

    def make() -> Learner:
        learn = learner(sliced_loaders)
        learn.model.append(Counts())
        return learn

    found = stopped(make(), 6)
    assert fit(make(), [Resume(found)]).train_iter == 12


def test_with_metrics_of_the_training_images_a_fit_goes_on_from_an_epochs_end():
    def make() -> Learner:
        learn = learner(sliced_loaders)
        learn.recorder.train_metrics = True
        return learn

    found = stopped(make(), 6)
    assert (found["epoch"], found["batch"]) == (1, 0)
    assert goes_on(make, list, 6)


def test_two_trackers_of_one_kind_are_two():
    def trackers() -> list[Callback]:
        return [TrackerCallback("accuracy"), TrackerCallback("valid_loss")]

    whole, resumed = trackers(), trackers()
    fit(learner(sliced_loaders), whole)
    found = stopped(learner(sliced_loaders), 9, trackers())
    assert set(found["trackers"]) == {"tracker", "tracker 2"}
    fit(learner(sliced_loaders), [Resume(found), *resumed])
    assert [tracker.best for tracker in resumed] == [tracker.best for tracker in whole]
    assert whole[0].best != whole[1].best


@pytest.mark.parametrize("batches", [5, 8, 9])
def test_fastais_bars_and_table_go_on(batches, capsys):
    found = stopped(learner(sliced_loaders), batches)
    capsys.readouterr()
    learner(sliced_loaders).fit_one_cycle(3, 0.01, cbs=Resume(found))
    said = capsys.readouterr().out
    assert [line[0] for line in said.splitlines() if line[:1].isdigit()] == [
        str(epoch) for epoch in range(found["epoch"], 3)
    ]


def test_fastais_graph_shows_the_epochs_that_are_over():
    class Drawn(ShowGraphCallback):
        order = 65

        def after_epoch(self) -> None:
            drawn.append((list(self.nb_batches), len(self.recorder.values)))

    found = stopped(learner(sliced_loaders), 9)
    learn, drawn = learner(sliced_loaders), []
    learn.add_cb(Drawn())
    with learn.no_logging():
        learn.fit_one_cycle(3, 0.01, cbs=Resume(found))
    assert drawn == [([4, 8, 12], 3)]


@pytest.mark.parametrize("append", [False, True])
def test_fastais_csv_has_the_epochs_that_are_over(tmp_path, append):
    def logged(name: str) -> CSVLogger:
        return CSVLogger(tmp_path / name, append=append)

    fit(learner(sliced_loaders), logged("whole.csv"))

    found = stopped(learner(sliced_loaders), 9, [logged("again.csv")])
    fit(learner(sliced_loaders), [Resume(found), logged("again.csv")])
    rows, again = (
        [line.split(",")[:-1] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("whole.csv", "again.csv")
    )
    assert len(rows) == 4
    assert [row for row in again[1:] if row[0] != "epoch"] == rows[1:]


@pytest.mark.parametrize("of_the_sampler", [False, True])
def test_the_generator_of_pytorchs_own_loader_goes_along(of_the_sampler):
    def loaders() -> DataLoaders:
        dls = stock_loaders()
        items, generator = list(dls.train.dataset), torch.Generator().manual_seed(0)
        if of_the_sampler:
            train = DataLoader(items, 6, sampler=RandomSampler(items, generator=generator))
        else:
            train = DataLoader(items, 6, shuffle=True, generator=generator)
        return DataLoaders(train, dls.valid)

    def make() -> Learner:
        learn = learner(stock_loaders)
        learn.dls = loaders()
        return learn

    assert goes_on(make, list, 6)
    learn = make()
    generator = learn.dls.train.sampler.generator
    before = generator.get_state()
    with learn.no_bar(), learn.no_logging():
        find_lr_bounds(learn, num_it=30)
    assert generator.get_state().equal(before)


def test_a_metric_of_several_values_is_kept_as_a_list():
    def make() -> Learner:
        learn = learner(sliced_loaders)
        learn.metrics = F1Score(average=None)
        return learn

    found = stopped(make(), 9)
    f1 = found["recorder"]["values"][0][-1]
    assert type(f1) is list
    resumed, whole = fit(make(), Resume(found)), fit(make(), [])
    for ours, theirs in zip(resumed.recorder.values, whole.recorder.values, strict=True):
        assert np.array_equal(ours[-1], theirs[-1])


def test_an_epoch_that_goes_on_counts_its_batches_on():
    assert goes_on(lambda: learner(sliced_loaders), lambda: [ShortEpochCallback(0.5)], 4)
    counted = []

    class Counts(Callback):
        def before_batch(self) -> None:
            counted.append(self.iter)

    fit(learner(sliced_loaders), [Resume(stopped(learner(sliced_loaders), 10)), Counts()])
    assert counted == [2, 3, 0, 1]
