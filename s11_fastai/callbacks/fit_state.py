"""The state of a fit of any fastai Learner, as nested plain values and tensors, and back.

What is kept: weights and which of them train, optimiser, gradients that accumulate, gradient
scaler, a loss function's own tensors, recorder, schedules, the state of every callback that has a
`state_dict`, what fastai's trackers have seen, the training DataLoader's place, and the random
generators.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import CSVLogger, ProgressCallback, ShowGraphCallback
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import TrackerCallback
from fastai.callback.training import GradientAccumulation
from fastai.learner import AvgSmoothLoss, Learner, Recorder
from fastai.torch_core import get_model
from fastcore.foundation import L
from torch import Tensor, nn

from s11_fastai.errors import S11Error, is_lack_of_memory
from s11_fastai.generators import (
    generator_state,
    load_loader_generator_state,
    loader_generator_state,
)
from s11_fastai.metrics import loss_module
from s11_fastai.streams import printable

# What the state of something else can raise where it is put back.
_MISFITS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
# What kernels an optimiser uses is the device's matter, not the fit's.
_KERNELS = ("fused", "foreach", "capturable")


def state_dict(
    learn: Learner, epoch: int, batch: int, generators: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The state of a Learner inside a fit, after `batch` training batches of `epoch`.

    Nested dicts and lists of plain values and of the Learner's own tensors, not copies.
    `generators` is the state of the random generators where it is not that of this moment.
    """
    scaler, parameters = vars(learn).get("scaler"), parameters_of(learn)
    loss = loss_module(learn)
    return {
        "epoch": epoch,
        "batch": batch,
        "epochs": learn.n_epoch,
        "batches": len(learn.dls.train),
        "train_iter": learn.train_iter,
        "pct_train": learn.pct_train,
        "model": dict(get_model(learn.model).state_dict()),
        "trained": [name for name, p in parameters.items() if p.requires_grad],
        # fastai's optimisers step wherever there is a gradient, also where it is zero by now.
        "with_gradient": [name for name, p in parameters.items() if p.grad is not None],
        "kind": _kind_of(learn.opt),
        "optimiser": learn.opt.state_dict(),
        "accumulated": _accumulated(learn),
        "scaler": scaler.state_dict() if scaler else None,
        "loss": dict(loss.state_dict()) if loss is not None else {},
        "recorder": _recorder_state(learn.recorder),
        "schedules": [_schedule_state(scheduler) for scheduler in _schedulers(learn)],
        "callbacks": {name: cb.state_dict() for name, cb in _with_state(learn).items()},
        "trackers": {name: _seen_by(cb) for name, cb in _trackers(learn).items()},
        "loader": _loader_state(learn, batch),
        "generators": generators or generator_state(),
    }


def parameters_of(learn: Learner) -> dict[str, nn.Parameter]:
    """The network's parameters by name, and those of a loss function that learns."""
    found = dict(get_model(learn.model).named_parameters())
    if (loss := loss_module(learn)) is not None:
        found |= {f"loss function.{name}": p for name, p in loss.named_parameters()}
    return found


def load_state_dict(learn: Learner, state: Mapping[str, Any]) -> None:
    """Put a state back, once the fit has begun and before its next epoch does.

    All but `pct_train` and the generators, which fastai changes before the next batch is there:
    `Resume` puts them back later. Raises S11Error for the state of another fit or network, and
    for what is none.
    """
    with refusing_misfits():
        _load(learn, state)


@contextmanager
def refusing_misfits() -> Iterator[None]:
    """Turn what is raised while a state is put back into an S11Error, but for a lack of memory."""
    try:
        yield
    except _MISFITS as error:
        if is_lack_of_memory(error):  # which is no fault of the state
            raise
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise S11Error(
            f"the checkpoint does not belong to this fit ({printable(why)}): begin anew without it"
        ) from error


def check_length(learn: Learner, state: Mapping[str, Any]) -> None:
    """Raise S11Error for the state of a fit of other epochs or batches."""
    for what, own in (("epochs", learn.n_epoch), ("batches", len(learn.dls.train))):
        if state[what] != own:
            raise S11Error(
                f"the checkpoint is of a fit of {state[what]} {what}, and this one has {own}: make "
                "them the same (fine_tune is two fits, which cannot be resumed), or begin anew "
                "without the checkpoint"
            )


def _load(learn: Learner, state: Mapping[str, Any]) -> None:
    check_length(learn, state)
    check_network(get_model(learn.model), state)
    schedules = list(zip(_schedulers(learn), state["schedules"], strict=True))
    for scheduler, kept in schedules:
        _check_curves(scheduler, kept["curves"])
    _check_optimiser(learn, state)
    get_model(learn.model).load_state_dict(state["model"])
    _load_optimiser(learn, state["optimiser"])
    _load_gradients(learn, state)
    if state["scaler"] and (scaler := vars(learn).get("scaler")):
        scaler.load_state_dict(state["scaler"])
    if state["loss"] and (loss := loss_module(learn)) is not None:
        loss.load_state_dict(state["loss"])
    _load_recorder(learn.recorder, state["recorder"])
    for scheduler, kept in schedules:
        scheduler.hps = {name: list(kept["recorded"][name]) for name in scheduler.hps}
    for name, cb in _with_state(learn).items():
        if name in state["callbacks"]:
            cb.load_state_dict(state["callbacks"][name])
    for name, tracker in _trackers(learn).items():
        seen = state["trackers"].get(name, {})
        vars(tracker).update({key: seen[key] for key in _seen_by(tracker).keys() & seen.keys()})
    _load_loader(learn, state["loader"])
    learn.train_iter = state["train_iter"]
    _tell_of_epochs(learn)


def check_network(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Raise S11Error, naming a difference, where the state is of another network."""
    kept, own = (
        {name: tuple(getattr(value, "shape", ())) for name, value in weights.items()}
        for weights in (state["model"], model.state_dict())
    )
    for name in sorted(kept.keys() | own.keys()):
        if kept.get(name) != own.get(name):
            raise S11Error(
                f"the checkpoint is of another network: {name} has shape {kept.get(name)} there "
                f"and {own.get(name)} here; go on with the code that began the run, or begin anew"
            )


# The parts of a Learner that have no `state_dict` of their own.


def _recorder_state(recorder: Recorder) -> dict[str, Any]:
    smooth = recorder.smooth_loss
    return {
        "lrs": torch.tensor(recorder.lrs, dtype=torch.float64),
        "losses": stacked(recorder.losses),
        "iters": list(recorder.iters),
        "values": [list(map(_plain, row)) for row in recorder.values],
        "smooth_loss": {"value": smooth.val, "count": smooth.count},
    }


def _plain(value: Any) -> Any:
    """What a metric gave, as a number, or as a list where it gave an array of them."""
    return value.tolist() if hasattr(value, "tolist") else value


def _load_recorder(recorder: Recorder, state: Mapping[str, Any]) -> None:
    recorder.lrs = [float(lr) for lr in state["lrs"].tolist()]
    recorder.losses = list(state["losses"].unbind())
    recorder.iters, recorder.values = list(state["iters"]), [L(row) for row in state["values"]]
    smooth: AvgSmoothLoss = recorder.smooth_loss
    smooth.val, smooth.count = state["smooth_loss"]["value"], _count(state["smooth_loss"]["count"])
    if not isinstance(smooth.val, Tensor):
        raise ValueError("a smoothed loss is no tensor")


def _tell_of_epochs(learn: Learner) -> None:
    """Tell fastai's callbacks that show, draw or log each epoch of those that are over.

    How long they took, the recorder does not know.
    """
    recorder = learn.recorder
    for cb in learn.cbs:
        if isinstance(cb, ProgressCallback) and "mbar" in vars(cb):
            cb.mbar.update(0)  # the bar must have begun before it takes the number of an epoch
        elif isinstance(cb, ShowGraphCallback) and "nb_batches" in vars(cb):
            cb.nb_batches = list(recorder.iters)
        elif isinstance(cb, CSVLogger) and not cb.append:
            for epoch, row in enumerate(recorder.values):
                time = [""] * recorder.add_time
                cb.file.write(",".join(map(str, [epoch, *row, *time])) + "\n")


def _count(value: Any) -> int:
    """A count of batches or passes; raises ValueError for anything else."""
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError("a count is not a whole number from 0")
    return value


def stacked(values: list[Tensor]) -> Tensor:
    """Single numbers on any devices as one tensor (n,) on the CPU, also where there are none."""
    return torch.stack([value.detach().cpu() for value in values]) if values else torch.empty(0)


def _check_optimiser(learn: Learner, state: Mapping[str, Any]) -> None:
    """Raise S11Error where the state is of another kind of optimiser than the Learner's."""
    kept, own = state["kind"], _kind_of(learn.opt)
    if kept != own:
        raise S11Error(
            f"the checkpoint is of a fit with another optimiser ({printable(str(kept))} there, "
            f"{own} here): give the `opt_func` that was given then, or begin anew without the "
            "checkpoint"
        )


def _kind_of(optimiser: Any) -> str:
    """The class of an optimiser, and what it wraps, or of fastai's the steps that it takes."""
    name = type(optimiser).__name__
    if "opt" in vars(optimiser):  # one of PyTorch's in a wrapper, or fastai's in Lookahead
        return f"{name} of {_kind_of(optimiser.opt)}"
    steps = [getattr(cb, "func", cb) for cb in vars(optimiser).get("cbs", ())]
    words = [getattr(step, "__name__", type(step).__name__) for step in steps]
    return f"{name} of {', '.join(words)}" if words else name


def _load_optimiser(learn: Learner, state: Mapping[str, Any]) -> None:
    if "param_groups" not in state:  # one of fastai's own, which takes tensors wherever they are
        places = [p for p, *_ in learn.opt.all_params()]
        pairs = zip(places, state["state"], strict=True)
        moved = {
            **state,
            "state": [_laid_out(own, p, p.device) for p, own in pairs],
            "hypers": copy.deepcopy(state["hypers"]),
        }
        if state.get("slow_weights"):  # of Lookahead
            moved["slow_weights"] = [
                [_in_layout_of(value, p, p.device) for value, p in zip(own, group, strict=True)]
                for own, group in zip(state["slow_weights"], learn.opt.param_lists, strict=True)
            ]
        learn.opt.load_state_dict(moved)
        return
    groups = getattr(learn.opt, "opt", learn.opt).param_groups
    parameters = [p for group in groups for p in group["params"]]
    values = {i: _laid_out(own, parameters[i]) for i, own in state["state"].items()}
    kept = [
        theirs | {key: own[key] for key in _KERNELS if key in own}
        for theirs, own in zip(state["param_groups"], groups, strict=True)
    ]
    if not all("lr" in group for group in kept):
        raise ValueError("a group of parameters has no lr")
    learn.opt.load_state_dict({"state": values, "param_groups": kept})


def _accumulated(learn: Learner) -> dict[str, Any] | None:
    """The gradients that wait for more batches, and of how many images they are."""
    for cb in learn.cbs:
        if isinstance(cb, GradientAccumulation) and vars(cb).get("count"):
            parameters = parameters_of(learn).items()
            gradients = {name: p.grad for name, p in parameters if p.grad is not None}
            return {"count": cb.count, "gradients": gradients}
    return None


def _load_gradients(learn: Learner, state: Mapping[str, Any]) -> None:
    """Let train what trained, with the gradients that were there."""
    learn.opt.zero_grad()  # of an earlier fit of this Learner, that was ended within a step
    parameters = parameters_of(learn)
    for name, p in parameters.items():
        p.grad = torch.zeros_like(p) if name in state["with_gradient"] else None
        p.requires_grad_(name in state["trained"])
    if (accumulated := state["accumulated"]) is None:
        return
    (waiting,) = (cb for cb in learn.cbs if isinstance(cb, GradientAccumulation))
    waiting.count = _count(accumulated["count"])
    for name, gradient in accumulated["gradients"].items():
        parameters[name].grad = _in_layout_of(gradient, parameters[name])


def _laid_out(
    own: Mapping[str, Any], parameter: Tensor, device: torch.device | None = None
) -> dict[str, Any]:
    """What an optimiser keeps of a parameter, each value as `_in_layout_of`."""
    return {key: _in_layout_of(value, parameter, device) for key, value in own.items()}


def _in_layout_of(value: Any, parameter: Tensor, device: torch.device | None = None) -> Any:
    """The value in the parameter's own order of memory, where it has the parameter's shape.

    Another one is moved to `device`, where that is given.
    """
    if not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape:
        return value.to(device or value.device, copy=True)  # the optimiser writes into its own
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _loader_state(learn: Learner, batch: int) -> dict[str, Any]:
    loader, place = learn.dls.train, {}
    if _has_place(loader):
        # Within an epoch its pass has begun, be it over or not: the loader's next is another.
        place = {"epoch": loader.state_dict()["epoch"] - bool(batch), "first_batch": batch}
    if begins_at_batch(loader):
        return place
    return place | loader_generator_state(learn.dls.loaders)


def begins_at_batch(loader: Any) -> bool:
    """Whether a pass of the loader can begin with any of its batches."""
    return _has_place(loader) and loader.begins_at_batch


def _has_place(loader: Any) -> bool:
    """Whether it is a loader that can tell and set which pass comes next, as ours are."""
    # Asked of the class: what another loader lacks, it may look for in its dataset.
    return hasattr(type(loader), "begins_at_batch")


def _load_loader(learn: Learner, state: Mapping[str, Any]) -> None:
    if "epoch" in state:
        learn.dls.train.set_epoch(_count(state["epoch"]), _count(state["first_batch"]))
    if "rngs" in state:
        load_loader_generator_state(learn.dls.loaders, state)


def _with_state(learn: Learner) -> dict[str, Callback]:
    # Asked of the class: what a callback lacks, fastai looks for in the Learner and its model.
    return _named(cb for cb in learn.cbs if hasattr(type(cb), "load_state_dict"))


def _trackers(learn: Learner) -> dict[str, TrackerCallback]:
    return _named(cb for cb in learn.cbs if isinstance(cb, TrackerCallback))


Kind = TypeVar("Kind", bound=Callback)


def _named(cbs: Iterable[Kind]) -> dict[str, Kind]:
    """Callbacks by their names; several of one name are counted."""
    named, times = {}, Counter[str]()
    for cb in cbs:
        times[cb.name] += 1
        named[cb.name if times[cb.name] == 1 else f"{cb.name} {times[cb.name]}"] = cb
    return named


def _seen_by(tracker: TrackerCallback) -> dict[str, float | int]:
    """The best value so far of one of fastai's trackers, and how long it has waited for a better
    one."""
    wait = {"wait": tracker.wait} if "wait" in vars(tracker) else {}
    return {"best": float(tracker.best), **wait}


def _schedulers(learn: Learner) -> list[ParamScheduler]:
    return [cb for cb in learn.cbs if isinstance(cb, ParamScheduler)]


def _schedule_state(scheduler: ParamScheduler) -> dict[str, Any]:
    """What it has set so far, and its curves, by which another schedule is recognised."""
    return {"recorded": dict(scheduler.hps), "curves": _curves(scheduler)}


def _curves(scheduler: ParamScheduler) -> dict[str, list[float]]:
    """Each curve at nine places of the fit; fastai asks for none at its very end."""
    return {
        name: [float(value) for i in range(9) for value in np.ravel(curve(i / 9))]
        for name, curve in scheduler.scheds.items()
    }


def _check_curves(scheduler: ParamScheduler, kept: Mapping[str, list[float]]) -> None:
    """Raise S11Error where the schedule is another than that of the fit of the checkpoint."""
    found = _curves(scheduler)
    for name in sorted(found.keys() | kept.keys()):
        own, theirs = found.get(name, []), kept.get(name, [])
        same = len(own) == len(theirs)
        if not same or not np.allclose(own, theirs, rtol=1e-6, atol=0, equal_nan=True):
            highest = [f"{max(values):.9g}" if values else "none" for values in (theirs, own)]
            raise S11Error(
                f"the checkpoint is of a fit with another schedule of {name} (up to "
                f"{highest[0]} there, {highest[1]} here): give what was given then, or begin anew "
                "without the checkpoint"
            )
