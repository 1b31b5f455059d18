"""The settings of a run: what they may be, and what a run folder says they are."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from s11_fastai.errors import S11Error

DEFAULTS = {
    "data": None,
    "epochs": 24,
    "bs": 512,
    "width": 64,
    "seed": 0,
    "lr_min": None,
    "lr_max": None,
    "peak_epoch": 5,
    "momentum": 0.9,
    "wd": 5e-4,
    "label_smoothing": 0.0,
    "logit_scale": 1.0,
    "holdout": 0,
    "device": None,
    "precision": "auto",
}
DEMO = {"data": "digits", "width": 16, "bs": 64}
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# Where the images lie and what computes may change between stop and resume.
MAY_CHANGE = ("data", "device", "precision")
_KINDS = {"data": str, "device": str, "lr_min": float, "lr_max": float}


def read_config(run: Path) -> dict:
    """The settings of the run in a folder; raises S11Error where its `config.json` has none."""
    path = run / "config.json"
    try:
        config = json.loads(path.read_text())
        if not isinstance(config, dict):
            raise S11Error("no settings")
        if unknown := sorted(config.keys() - DEFAULTS.keys()):
            raise S11Error(f"{', '.join(unknown)} is no setting that this version knows")
        config = DEFAULTS | config  # a run of an older version lacks the newer settings
        for name, value in config.items():
            if not _fits(name, value):
                raise S11Error(f"{name} is {value!r}")
        check(config)
    except (ValueError, RecursionError, S11Error) as error:
        raise S11Error(
            f"{path} is damaged or of another version ({error}): mend it, or choose another --out"
        ) from error
    return config


def differences(theirs: Mapping, ours: Mapping) -> list[str]:
    """A word on each setting that may not change and differs."""
    theirs = DEFAULTS | dict(theirs)  # a run of an older version lacks the newer settings
    return [
        f"{flag(name)} {_shown(ours[name])} differs from the run's {_shown(theirs[name])}"
        for name in ours
        if name not in MAY_CHANGE and ours[name] != theirs.get(name)
    ]


def joined(own: Mapping, given: Mapping) -> dict:
    """The run's own settings with those given that may change; raises S11Error for another."""
    wrong = differences(own, {**own, **given})
    if wrong:
        raise S11Error(f"{'; '.join(wrong)}: leave it out, or choose another --out")
    return {**own, **given}


def check(settings: Mapping) -> None:
    """Raise S11Error for values that make no run."""
    at_least = {"bs": 1, "width": 1, "seed": 0, "holdout": 0, "peak_epoch": 1}
    for name, least in at_least.items():
        if settings[name] < least:
            raise S11Error(f"{flag(name)} must be {least} or more")
    lr_min, lr_max = settings["lr_min"], settings["lr_max"]
    for name in ("lr_min", "lr_max"):
        lr = settings[name]
        if lr is not None and not 0 < lr < math.inf:
            raise S11Error(f"{flag(name)} must be a number above 0")
    if lr_min and lr_max and lr_min >= lr_max:
        raise S11Error(f"--lr-min {lr_min:g} must be below --lr-max {lr_max:g}")
    if settings["epochs"] <= settings["peak_epoch"]:
        raise S11Error(
            f"--epochs {settings['epochs']} must be above --peak-epoch {settings['peak_epoch']}: "
            "give more epochs or an earlier peak"
        )
    if settings["seed"] >= 2**63:
        raise S11Error("--seed must be below 2**63")
    if not 0 < settings["momentum"] < 1:
        raise S11Error("--momentum must lie between 0 and 1")
    if not 0 <= settings["wd"] < math.inf:
        raise S11Error("--wd must be 0 or more")
    if not 0 <= settings["label_smoothing"] < 1:
        raise S11Error("--label-smoothing must be 0 or more and below 1")
    if not 0 < settings["logit_scale"] < math.inf:
        raise S11Error("--logit-scale must be a number above 0")
    if settings["precision"] not in PRECISIONS:
        raise S11Error(f"--precision must be one of {', '.join(PRECISIONS)}")


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _fits(name: str, value: object) -> bool:
    if value is None:
        return DEFAULTS[name] is None
    kind = _KINDS.get(name, type(DEFAULTS[name]))
    return type(value) is kind


def _shown(value: object) -> str:
    return "none (not given)" if value is None else str(value)
