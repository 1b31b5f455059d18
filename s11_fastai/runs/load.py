"""Opening a run again, finished or interrupted, without training and without unpickling."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import torch
from fastcore.foundation import L
from torch import Tensor

from s11_fastai.data.dls import get_dls
from s11_fastai.environment import pick_device
from s11_fastai.errors import S11Error
from s11_fastai.learner import S11Learner, s11_learner
from s11_fastai.model import S11ResNet
from s11_fastai.runs.checkpoints import Checkpoints
from s11_fastai.runs.records import Records, read_records
from s11_fastai.runs.settings import Settings
from s11_fastai.sources import ImageSet, load_images
from s11_fastai.sources.digits import load_digits
from s11_fastai.storage import Damaged, read_tensors


def load_run(
    path: str | Path,
    *,
    weights: Literal["final", "best"] = "final",
    data: str | Path | None = None,
    device: str | None = None,
) -> S11Learner:
    """The Learner of the run in a folder, with its weights, DataLoaders and recorder.

    "final" weights are those after the last epoch, or of the newest checkpoint where the run was
    interrupted; "best" those of the epoch that was best on the evaluated images. `data` says where
    the images are now, if they have moved. The recorder holds the epochs that are over. Raises
    S11Error for a folder that holds no run, other images, and weights that are missing, damaged or
    of another network.
    """
    if weights not in ("final", "best"):
        raise S11Error(f'weights= must be "final" or "best", not {weights!r}')
    records = read_records(Path(path))
    state = _weights(records, weights)
    settings = records.settings
    images = _images(records, settings.data if data is None else data)
    learn = learner_of(settings, images, pick_device(device))
    try:
        learn.model.load_state_dict(state)
    except RuntimeError as error:
        raise S11Error(
            f"{path} has weights of another network than width {settings.width} and {learn.dls.c} "
            "classes make: its files do not belong together"
        ) from error
    # As it was trained: the other order of memory gives other last digits.
    learn.model.eval().to(learn.dls.device).to(memory_format=torch.channels_last)
    _fill_recorder(learn, records)
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


def _images(records: Records, data: str | Path | None) -> ImageSet:
    if data not in (None, "digits") and not Path(os.path.expanduser(data)).exists():
        raise S11Error(
            f"the images of {records.path} are not at {data}: give `data`, where they are now"
        )
    images = load_images(data)
    expected = records.env.get("data_fingerprint")
    if data == "digits" and expected != images.fingerprint:
        images = load_digits(smooth=False)  # a run of version 0.1.0
    if expected not in (None, images.fingerprint):
        raise S11Error(
            f"the images' fingerprint {images.fingerprint[:12]} differs from the run's "
            f"{str(expected)[:12]}: give `data` a copy of the images that the run was made with"
        )
    holdout = records.settings.holdout
    return images.hold_out(holdout) if holdout else images


def _weights(records: Records, which: str) -> dict[str, Tensor]:
    name = "best.safetensors" if which == "best" else "model.safetensors"
    path = records.path / name
    try:
        if path.exists():
            return {key: value.clone() for key, value in read_tensors(path)[0].items()}
        found = None if which == "best" else Checkpoints(records.path / "checkpoint").newest()
    except Damaged as error:
        raise S11Error(
            f"{records.path}: {error}; resuming the run makes it again where there is a checkpoint"
        ) from error
    if not found:
        raise S11Error(f"{records.path} has no {which} weights yet: finish the run first")
    return found["learner"]["model"]


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
        smoothed = recorder.losses[end - 1].item()
        recorder.values.append(L(smoothed, row.valid_loss, row.valid_accuracy))
