"""Exact resume, for any fastai Learner: the state of a fit, saved and put back.

What is kept: weights, optimiser, gradient scaler, recorder, schedules, the state of every callback
that has a `state_dict`, what fastai's trackers have seen, the training DataLoader's place, and the
random generators. A loader that can begin at a batch (it has `set_epoch`, and `begins_at_batch`
unless that is so always) lets a fit go on within an epoch; with any other, it goes on from the last
epoch's end.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from fastai.callback.core import Callback, CancelEpochException
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import TrackerCallback
from fastai.learner import AvgSmoothLoss, Learner, Recorder
from fastai.torch_core import get_model
from fastcore.foundation import L
from torch import Tensor, nn

from s11_fastai.errors import DivergedError, S11Error, is_lack_of_memory
from s11_fastai.streams import printable

# What the state of something else can raise where it is put back.
_MISFITS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
# What kernels an optimiser uses is the device's matter, not the fit's.
_KERNELS = ("fused", "foreach", "capturable")


def batches_done(learn: Learner) -> int:
    """How many training batches of the epoch are behind a Learner that is fitting."""
    return round((learn.pct_train * learn.n_epoch - learn.epoch) * len(learn.dls.train))


def is_training(learn: Learner) -> bool:
    """Whether what begins is to train a Learner, and is neither a range test nor a prediction.

    Once it has been trained, `learn.validate` looks like training until it has evaluated.
    """
    others = ("lr_finder", "gather_preds")
    return learn.opt is not None and not any(hasattr(learn, name) for name in others)


def state_dict(
    learn: Learner, epoch: int, batch: int, generators: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The state of a Learner inside a fit, after `batch` training batches of `epoch`.

    Nested dicts and lists of plain values and of the Learner's own tensors, not copies.
    `generators` is the state of the random generators where it is not that of this moment.
    """
    recorder, scaler = learn.recorder, getattr(learn, "scaler", None)
    return {
        "epoch": epoch,
        "batch": batch,
        "epochs": learn.n_epoch,
        "batches": len(learn.dls.train),
        "train_iter": learn.train_iter,
        "pct_train": learn.pct_train,
        "model": dict(get_model(learn.model).state_dict()),
        "optimiser": learn.opt.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
        "recorder": _recorder_state(recorder),
        "schedules": [dict(scheduler.hps) for scheduler in _schedulers(learn)],
        "callbacks": {cb.name: cb.state_dict() for cb in _with_state(learn)},
        "trackers": {cb.name: _seen_by(cb) for cb in _trackers(learn)},
        "loader": _loader_state(learn, batch),
        "generators": generators or generator_state(),
    }


def load_state_dict(learn: Learner, state: Mapping[str, Any]) -> None:
    """Put a state back, once the fit has begun and before its next epoch does.

    All but `pct_train` and the generators, which fastai changes before the next batch is there:
    `Resume` puts them back later. Raises S11Error for the state of another fit or network, and
    for what is none.
    """
    with _belonging():
        _load(learn, state)


@contextmanager
def _belonging() -> Iterator[None]:
    """Where a state does not fit, whatever goes wrong says so."""
    try:
        yield
    except _MISFITS as error:
        if is_lack_of_memory(error):  # which is no fault of the state
            raise
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise S11Error(
            f"the checkpoint does not belong to this fit ({printable(why)}): begin anew without it"
        ) from error


def _load(learn: Learner, state: Mapping[str, Any]) -> None:
    for what, own in (("epochs", learn.n_epoch), ("batches", len(learn.dls.train))):
        if state[what] != own:
            raise S11Error(
                f"the checkpoint is of a fit of {state[what]} {what}, and this one has {own}: make "
                "them the same, or begin anew without the checkpoint"
            )
    check_network(get_model(learn.model), state)
    get_model(learn.model).load_state_dict(state["model"])
    _load_optimiser(learn, state["optimiser"])
    if state["scaler"] and getattr(learn, "scaler", None):
        learn.scaler.load_state_dict(state["scaler"])
    _load_recorder(learn.recorder, state["recorder"])
    for scheduler, hypers in zip(_schedulers(learn), state["schedules"], strict=True):
        scheduler.hps = {name: list(hypers[name]) for name in scheduler.hps}
    for cb in _with_state(learn):
        if cb.name in state["callbacks"]:
            cb.load_state_dict(state["callbacks"][cb.name])
    for tracker in _trackers(learn):
        seen = state.get("trackers", {}).get(tracker.name, {})
        vars(tracker).update({name: seen[name] for name in _seen_by(tracker).keys() & seen.keys()})
    _load_loader(learn, state["loader"])
    learn.train_iter = state["train_iter"]


def check_network(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Raise S11Error, naming a difference, where the state is of another network."""
    kept, own = (
        {name: tuple(value.shape) for name, value in weights.items()}
        for weights in (state["model"], model.state_dict())
    )
    for name in sorted(kept.keys() | own.keys()):
        if kept.get(name) != own.get(name):
            raise S11Error(
                f"the checkpoint is of another network: {name} has shape {kept.get(name)} there "
                f"and {own.get(name)} here; go on with the code that began the run, or begin anew"
            )


class Resume(Callback):
    """Begins the fit where a state of `SaveCheckpoints` stands; with None, at its beginning.

    The epochs before it are passed over in silence: no other callback hears of them. It is for the
    `cbs` of one fit.
    """

    order = -1000  # the first of all, so that it can keep events from the others

    def __init__(self, state: Mapping[str, Any] | None) -> None:
        self.state = state
        self.waiting = state is not None
        self.begins = (state["epoch"], state["batch"]) if state else None
        self.silenced: list[Callback] = []
        self.drawn = False  # the generators are those of the state

    def before_fit(self) -> None:
        self.run = is_training(self.learn)

    def before_epoch(self) -> None:
        if self.state is None or not self.waiting:
            return
        if self.epoch < self.state["epoch"]:
            others = [cb for cb in self.learn.cbs if cb is not self and cb.run]
            for cb in others:
                cb.run = False
            self.silenced += others
            raise CancelEpochException
        self._begin()

    # Making an iterator over a DataLoader draws a random number, and the epoch's beginning sets
    # pct_train: within an epoch, both come back when that is over. The transforms of the first
    # batch draw before `before_batch`: a loader that has `when_begun` calls before that.

    def before_batch(self) -> None:
        if self.state is not None and self.training:
            self._restore_rest()

    def before_validate(self) -> None:
        if self.state is not None:  # no batch of training was left
            self._restore_rest()

    def after_fit(self) -> None:
        if self.waiting:  # no epoch was left to do
            self._begin()

    def _begin(self) -> None:
        assert self.state is not None
        for cb in self.silenced:
            cb.run = True
        self.waiting = False
        load_state_dict(self.learn, self.state)
        if not self.state["batch"]:
            self._restore_rest()
        elif hasattr(self.dls.train, "when_begun"):
            self.dls.train.when_begun(self._restore_generators)

    def _restore_generators(self) -> None:
        if self.state is not None:
            with _belonging():
                load_generator_state(self.state["generators"])
            self.drawn = True

    def _restore_rest(self) -> None:
        assert self.state is not None
        if not (self.drawn and self.training):
            self._restore_generators()
        with _belonging():
            self.learn.pct_train = float(self.state["pct_train"])
        self.state = None


class SaveCheckpoints(Callback):
    """Gives `save` the state of the fit, as `state_dict` describes it.

    It does so at the beginning, when `minutes` have passed since the last time, after each epoch,
    and when `checkpoint` is called. Weights and losses that are not finite are not saved:
    it raises DivergedError. Range tests, predictions and evaluations by themselves save nothing.
    """

    order = ParamScheduler.order + 5  # after what records the batch and the epoch

    def __init__(
        self,
        save: Callable[[dict[str, Any]], None],
        minutes: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.write, self.minutes, self.clock = save, minutes, clock
        self.saved: tuple[int, int] | None = None

    def before_fit(self) -> None:
        self.run, self.saved = is_training(self.learn), None

    def before_epoch(self) -> None:
        self.generators = generator_state()

    def before_train(self) -> None:  # which `learn.validate` has not
        if self.saved is None:
            self.saved_at = self.clock()
            resume = getattr(self.learn, "resume", None)
            if resume is not None and resume.begins is not None:
                self.saved = resume.begins
            else:
                self._save(self.epoch, 0, self.generators)

    def before_validate(self) -> None:
        self.generators = generator_state()  # evaluation begins again, and draws again

    def after_batch(self) -> None:
        if self.training and self.clock() - self.saved_at >= 60 * self.minutes:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Save the state after the last training batch, where the loader can begin after it."""
        if _begins_at_batch(self.dls.train):
            generators = None if self.training else self.generators
            self._save(self.epoch, batches_done(self.learn), generators)

    def after_epoch(self) -> None:
        if self.saved is not None:
            self._save(self.epoch + 1, 0)

    def _save(self, epoch: int, batch: int, generators: dict[str, Any] | None = None) -> None:
        """`generators` is their state where it is not that of this moment."""
        guard = getattr(self.learn, "stop_on_divergence", None)
        if guard is not None:
            guard.look()
        if not all(value.isfinite().all() for value in get_model(self.model).state_dict().values()):
            raise DivergedError(
                f"the weights became infinite or NaN by step {self.train_iter}: begin again with a "
                "lower `lr_max`"
            )
        if (epoch, batch) != self.saved:
            self.write(state_dict(self.learn, epoch, batch, generators))
            self.saved = epoch, batch
        self.saved_at = self.clock()


# The parts of a Learner that have no `state_dict` of their own.


def _recorder_state(recorder: Recorder) -> dict[str, Any]:
    smooth = recorder.smooth_loss
    return {
        "lrs": torch.tensor(recorder.lrs, dtype=torch.float64),
        "losses": stacked(recorder.losses),
        "iters": list(recorder.iters),
        "values": [list(row) for row in recorder.values],
        "smooth_loss": {"value": smooth.val, "count": smooth.count},
    }


def _load_recorder(recorder: Recorder, state: Mapping[str, Any]) -> None:
    recorder.lrs = [float(lr) for lr in state["lrs"].tolist()]
    recorder.losses = list(state["losses"].unbind())
    recorder.iters, recorder.values = list(state["iters"]), [L(row) for row in state["values"]]
    smooth: AvgSmoothLoss = recorder.smooth_loss
    smooth.val, smooth.count = state["smooth_loss"]["value"], _count(state["smooth_loss"]["count"])
    if not isinstance(smooth.val, Tensor):
        raise ValueError("a smoothed loss is no tensor")


def _count(value: Any) -> int:
    """A count of batches or passes; raises ValueError for anything else."""
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError("a count is not a whole number from 0")
    return value


def stacked(values: list[Tensor]) -> Tensor:
    """Single numbers on any devices as one tensor (n,) on the CPU, also where there are none."""
    return torch.stack([value.detach().cpu() for value in values]) if values else torch.empty(0)


def _load_optimiser(learn: Learner, state: Mapping[str, Any]) -> None:
    groups = getattr(learn.opt, "opt", learn.opt).param_groups if "param_groups" in state else []
    if not groups:  # one of fastai's own, which takes tensors wherever they are
        places = [p for p, *_ in learn.opt.all_params()]
        moved = [
            {key: _as_lies(value, place, place.device) for key, value in own.items()}
            for place, own in zip(places, state["state"], strict=True)
        ]
        more = {}
        if state.get("slow_weights"):  # of Lookahead
            more["slow_weights"] = [
                [_as_lies(value, p, p.device) for value, p in zip(own, group, strict=True)]
                for own, group in zip(state["slow_weights"], learn.opt.param_lists, strict=True)
            ]
        learn.opt.load_state_dict({**state, "state": moved, **more})
        return
    parameters = [p for group in groups for p in group["params"]]
    values = {
        index: {key: _as_lies(value, parameters[index]) for key, value in own.items()}
        for index, own in state["state"].items()
    }
    kept = [
        theirs | {key: own[key] for key in _KERNELS if key in own}
        for theirs, own in zip(state["param_groups"], groups, strict=True)
    ]
    if not all("lr" in group for group in kept):
        raise ValueError("a group of parameters has no lr")
    learn.opt.load_state_dict({"state": values, "param_groups": kept})


def _as_lies(value: Any, parameter: Tensor, device: torch.device | None = None) -> Any:
    """The value in the parameter's own order of memory, where it has the parameter's shape.

    Another one is moved to `device`, where that is given.
    """
    if not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape:
        return value.to(device or value.device)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _loader_state(learn: Learner, batch: int) -> dict[str, Any]:
    loader, place = learn.dls.train, {}
    if hasattr(loader, "set_epoch"):
        # Within an epoch its pass has begun, be it over or not: the loader's next is another.
        place = {"epoch": loader.state_dict()["epoch"] - bool(batch), "first_batch": batch}
    if _begins_at_batch(loader):
        return place
    rngs = [each.rng for each in learn.dls.loaders if hasattr(each, "rng")]
    return {**place, "rngs": [_listed(rng.getstate()) for rng in rngs]}


def _begins_at_batch(loader: Any) -> bool:
    """Whether a pass of the loader can begin with any of its batches."""
    return hasattr(loader, "set_epoch") and getattr(loader, "begins_at_batch", True)


def _load_loader(learn: Learner, state: Mapping[str, Any]) -> None:
    if "epoch" in state:
        learn.dls.train.set_epoch(_count(state["epoch"]), _count(state["first_batch"]))
    if "rngs" not in state:
        return
    rngs = [each.rng for each in learn.dls.loaders if hasattr(each, "rng")]
    for rng, kept in zip(rngs, state["rngs"], strict=True):
        rng.setstate(_tupled(kept))


def generator_state() -> dict[str, Any]:
    """The state of torch's, NumPy's and Python's global random generators."""
    name, keys, *rest = cast(tuple, np.random.get_state(legacy=True))
    state = {
        "torch": torch.get_rng_state(),
        "python": _listed(random.getstate()),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def load_generator_state(state: Mapping[str, Any]) -> None:
    """Put back what `generator_state` gave."""
    torch.set_rng_state(state["torch"])
    random.setstate(_tupled(state["python"]))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _listed(state: tuple) -> list:
    version, keys, gauss = state
    return [version, torch.tensor(keys, dtype=torch.int64), gauss]


def _tupled(state: list) -> tuple:
    version, keys, gauss = state
    return version, tuple(keys.tolist()), gauss


def _with_state(learn: Learner) -> list[Callback]:
    # Asked of the class: what a callback lacks, fastai looks for in the Learner and its model.
    return [cb for cb in learn.cbs if hasattr(type(cb), "load_state_dict")]


def _trackers(learn: Learner) -> list[TrackerCallback]:
    return [cb for cb in learn.cbs if isinstance(cb, TrackerCallback)]


def _seen_by(tracker: TrackerCallback) -> dict[str, float | int]:
    """The best value so far of one of fastai's trackers, and how long it has waited for a better
    one."""
    wait = {"wait": tracker.wait} if "wait" in vars(tracker) else {}
    return {"best": float(tracker.best), **wait}


def _schedulers(learn: Learner) -> list[ParamScheduler]:
    return [cb for cb in learn.cbs if isinstance(cb, ParamScheduler)]
