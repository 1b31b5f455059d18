"""Opening a run again, finished or interrupted, without training and without unpickling."""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fastcore.foundation import L
from torch import Tensor

from s11_fastai.data.dls import get_dls
from s11_fastai.environment import pick_device, pick_precision
from s11_fastai.errors import S11Error
from s11_fastai.learner import S11Learner, s11_learner
from s11_fastai.model import S11ResNet
from s11_fastai.runs.checkpoints import Checkpoints
from s11_fastai.runs.records import Records, read_records
from s11_fastai.runs.schema import WAY_BACK
from s11_fastai.runs.settings import Settings
from s11_fastai.runs.weights import check_numbers, network_without_room, shapes_of
from s11_fastai.runs.whole import WEIGHTS, Which
from s11_fastai.sources import ImageSet, load_all
from s11_fastai.sources.digits import load_digits
from s11_fastai.sources.imageset import MAX_CLASSES
from s11_fastai.storage import Damaged, read_tensors, shapes_in

_LAST = "fc.bias"  # one value a class


def load_run(
    path: str | Path,
    *,
    weights: Which = "final",
    data: str | Path | None = None,
    device: str | None = None,
) -> S11Learner:
    """The Learner of the run in a folder, with its weights, DataLoaders and recorder.

    "final" weights are those after the last epoch, or of the newest checkpoint where the run was
    interrupted; "best" those of the epoch that was best on the evaluated images. `data` says where
    the images are now, if they have moved. On a device that lacks the precision of the run, the
    Learner has the device's own. The recorder holds the epochs that are over. Raises
    S11Error for a folder that holds no run, other images, and weights that are missing, damaged or
    of another network.
    """
    if weights not in WEIGHTS:
        raise S11Error(f'weights= must be "final" or "best", not {weights!r}')
    records = read_records(Path(path))
    settings, (state, steps) = records.settings, _weights(records, weights)
    images = _images(records, settings.data if data is None else data)
    if len(images.classes) != len(state[_LAST]):
        raise S11Error(
            f"{path} has weights for {len(state[_LAST])} classes, and the images have "
            f"{len(images.classes)}: its files do not belong together"
        )
    here = pick_device(device)
    learn = learner_of(_computable(settings, here), images, here)
    learn.model.load_state_dict(state)
    # As it was trained: the other order of memory gives other last digits.
    learn.model.eval().to(learn.dls.device).to(memory_format=torch.channels_last)
    _fill_recorder(learn, records)
    if steps is not None:
        learn.train_iter = steps
    return learn


def learner_of(settings: Settings, images: ImageSet, device: torch.device) -> S11Learner:
    """The Learner that the settings of a run describe, as `run.py` makes it; fresh weights."""
    dls = get_dls(images, settings.bs, seed=settings.seed, device=device)
    return s11_learner(
        dls,
        S11ResNet(dls.c, settings.width, settings.logit_scale),
        momentum=settings.momentum,
        wd=settings.wd,
        label_smoothing=settings.label_smoothing,
        precision=settings.precision,
    )


def _computable(settings: Settings, device: torch.device) -> Settings:
    """The settings, with the device's own precision where it lacks that of the run.

    It is that of training alone; an evaluation does not depend on it.
    """
    try:
        pick_precision(settings.precision, device)
    except S11Error:
        return replace(settings, precision="auto")
    return settings


def _images(records: Records, data: str | Path | None) -> ImageSet:
    if data not in (None, "digits") and not Path(os.path.expanduser(data)).exists():
        raise S11Error(
            f"the images of {records.path} are not at {data}: give `data`, where they are now"
        )
    holdout, expected = records.settings.holdout, records.env.get("data_fingerprint")
    # Images that have lost their test part are others, which says more than what they lack.
    needs_test = not holdout and expected is None
    images = load_all(data, size=records.settings.resize, needs_test=needs_test)
    if data == "digits" and expected != images.fingerprint:
        images = load_digits(smooth=False)  # a run of version 0.1.0
    if expected not in (None, images.fingerprint):
        raise S11Error(
            f"the images' fingerprint {images.fingerprint[:12]} differs from the run's "
            f"{str(expected)[:12]}: give `data` a copy of the images that the run was made with"
        )
    return images.hold_out(holdout) if holdout else images


def _weights(records: Records, which: Which) -> tuple[dict[str, Tensor], int | None]:
    """The weights, which are finite, and of a network as wide as the settings say.

    Of those in a checkpoint also how many steps of training they have seen.
    """
    path, steps = records.path / WEIGHTS[which], None
    try:
        if path.is_file():
            _check_shapes(records, shapes_in(path))
            weights = read_tensors(path)[0]
        elif records.results:
            raise S11Error(f"{path} is missing: {WAY_BACK}")
        elif which == "best" or not (found := Checkpoints(records.path / "checkpoint").newest()):
            raise S11Error(f"{records.path} has no {which} weights yet: finish the run first")
        else:
            weights, steps = _in_checkpoint(records, found)
            _check_shapes(records, {key: tuple(each.shape) for key, each in weights.items()})
    except Damaged as error:
        raise S11Error(f"{records.path}: {error}: {WAY_BACK}") from error
    try:
        check_numbers(weights)
    except ValueError as error:
        raise S11Error(f"{records.path} has weights that are of no use: {error}") from error
    return {key: value.clone() for key, value in weights.items()}, steps


def _in_checkpoint(records: Records, state: Mapping[str, Any]) -> tuple[dict[str, Tensor], int]:
    learner = state.get("learner")
    found = learner if isinstance(learner, dict) else {}
    weights, steps = found.get("model"), found.get("train_iter")
    are_tensors = isinstance(weights, dict) and all(isinstance(w, Tensor) for w in weights.values())
    if isinstance(weights, dict) and are_tensors and isinstance(steps, int):
        return weights, steps
    raise S11Error(f"{records.path} has a checkpoint without weights: choose another folder")


def _check_shapes(records: Records, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise S11Error where these are not the shapes of the run's network, before there is one."""
    width, n_classes = records.settings.width, (shapes.get(_LAST) or (0,))[0]
    is_one = 1 <= n_classes <= MAX_CLASSES
    if not is_one or shapes != shapes_of(network_without_room(n_classes, width)):
        raise S11Error(
            f"{records.path} has weights of another network than width {width} makes: its files do "
            "not belong together"
        )


def _fill_recorder(learn: S11Learner, records: Records) -> None:
    """What fastai's recorder would hold after the epochs that are over."""
    recorder, steps = learn.recorder, records.steps
    recorder.before_fit()
    learn.create_opt()
    for step in steps:
        recorder.smooth_loss.accumulate(SimpleNamespace(loss=torch.tensor(step.loss)))
        recorder.losses.append(recorder.smooth_loss.value)
    recorder.lrs = [step.lr for step in steps]
    recorder.hps = {"lr": list(recorder.lrs)}
    per_epoch = len(steps) // max(len(records.history), 1)
    for row in records.history:
        end = row.epoch * per_epoch
        recorder.iters.append(end)
        smoothed = recorder.losses[end - 1].item() if end else math.nan
        recorder.values.append(L(smoothed, row.valid_loss, row.valid_accuracy))
