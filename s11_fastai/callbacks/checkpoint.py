"""Exact resume: everything that a Learner needs to go on in the middle of an epoch.

Order and augmentation follow from the seed and the epoch, and the lr from the step, so what is
kept is little: weights, optimiser, scaler, the position, the sums behind the metrics, and what
the recorder has recorded.
"""

from typing import NamedTuple

import torch
from fastai.callback.schedule import ParamScheduler
from fastai.torch_core import get_model
from torch import Tensor, nn

from s11_fastai.errors import S11Error
from s11_fastai.learner import Position, S11Learner
from s11_fastai.metrics import Accuracy


class State(NamedTuple):
    """Tensors by name, and plain values of which JSON keeps every digit."""

    tensors: dict[str, Tensor]
    values: dict


def progress(learn: S11Learner, batch: int) -> dict:
    """Where this epoch stands after `batch` training batches: values that evaluation overwrites."""
    return {
        "position": [learn.epoch, batch],
        "train_iter": learn.train_iter,
        "pct_train": learn.pct_train,
        "accuracy": [[int(metric.correct), metric.total] for metric in _accuracies(learn)],
    }


def between_epochs(learn: S11Learner, epoch: int) -> dict:
    """What `progress` says before the first step of `epoch`, counted from 0."""
    return {"position": [epoch, 0], "train_iter": learn.train_iter}


def capture(learn: S11Learner, at: dict) -> State:
    """The state of a Learner inside a fit; `at` is `progress` or `between_epochs`.

    The tensors are the Learner's own, not copies.
    """
    recorder = learn.recorder
    optimiser = learn.opt.state_dict()
    tensors = {
        f"model.{name}": value for name, value in get_model(learn.model).state_dict().items()
    }
    scalars: dict[str, dict] = {}
    for index, values in optimiser["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    tensors["recorder.lrs"] = torch.tensor(recorder.lrs, dtype=torch.float64)
    tensors["recorder.losses"] = torch.stack([recorder.smooth_loss.val, *recorder.losses])[1:]
    tensors["recorder.smooth_loss"] = recorder.smooth_loss.val
    scaler = getattr(learn, "scaler", None)
    values = {
        "at": at,
        "optimiser": {"groups": optimiser["param_groups"], "state": scalars},
        "scaler": scaler.state_dict() if scaler else None,
        "recorder": {
            "iters": recorder.iters,
            "values": [list(row) for row in recorder.values],
            "count": recorder.smooth_loss.count,
        },
        "scheduled": {k: v for s in _schedulers(learn) for k, v in s.hps.items()},
    }
    return State(tensors, values)


def check_network(model: nn.Module, state: State) -> None:
    """Raise S11Error, naming a difference, where the state is of another network."""
    kept, own = (
        {name: tuple(value.shape) for name, value in weights.items()}
        for weights in (below("model", state.tensors), model.state_dict())
    )
    for name in sorted(kept.keys() | own.keys()):
        if kept.get(name) != own.get(name):
            raise S11Error(
                f"the checkpoint is of another network: {name} has shape {kept.get(name)} there "
                f"and {own.get(name)} here; go on with the code that began the run, or begin anew"
            )


def restore(learn: S11Learner, state: State) -> None:
    """Put the state into a Learner that is about to fit, after every callback's `before_fit`.

    `restore_progress` does the rest once the resumed epoch has begun.
    """
    tensors, values = state
    get_model(learn.model).load_state_dict(below("model", tensors))
    _restore_optimiser(learn, tensors, values["optimiser"])
    if values["scaler"] and getattr(learn, "scaler", None):
        learn.scaler.load_state_dict(values["scaler"])
    recorder, kept = learn.recorder, values["recorder"]
    recorder.lrs = tensors["recorder.lrs"].tolist()
    recorder.losses = list(tensors["recorder.losses"].to(learn.dls.device).unbind())
    recorder.iters, recorder.values = kept["iters"], [type(learn.cbs)(r) for r in kept["values"]]
    recorder.smooth_loss.val = tensors["recorder.smooth_loss"].to(learn.dls.device, copy=True)
    recorder.smooth_loss.count = kept["count"]
    for scheduler in _schedulers(learn):
        scheduler.hps = {name: values["scheduled"][name] for name in scheduler.hps}
    learn.train_iter = values["at"]["train_iter"]
    learn.start = Position(*values["at"]["position"])


def restore_progress(learn: S11Learner, at: dict) -> None:
    """In the resumed epoch, after every callback's `before_train`: what `progress` kept."""
    if "pct_train" in at:
        learn.pct_train = at["pct_train"]
        for metric, sums in zip(_accuracies(learn), at["accuracy"], strict=True):
            metric.correct, metric.total = sums


def _restore_optimiser(learn: S11Learner, tensors: dict[str, Tensor], kept: dict) -> None:
    parameters = [p for group in learn.opt.opt.param_groups for p in group["params"]]
    state = {int(index): dict(values) for index, values in kept["state"].items()}
    for name, value in below("optimiser", tensors).items():
        index, key = name.split(".", 1)
        own = parameters[int(index)]
        if value.shape == own.shape:  # in the parameter's own order of memory
            value = torch.empty_like(own, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[key] = value
    fused = learn.opt.opt.defaults["fused"]  # the kernels are the device's, not the run's
    groups = [group | {"fused": fused} for group in kept["groups"]]
    learn.opt.load_state_dict({"state": state, "param_groups": groups})


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix` and a dot, without that."""
    cut = len(prefix) + 1
    return {name[cut:]: t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def _accuracies(learn: S11Learner) -> list[Accuracy]:
    return [metric for metric in learn.metrics if isinstance(metric, Accuracy)]


def _schedulers(learn: S11Learner) -> list[ParamScheduler]:
    return [cb for cb in learn.cbs if isinstance(cb, ParamScheduler)]
