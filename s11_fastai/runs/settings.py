"""The settings of a run: one line for each, from which the flags and `config.json` follow."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from s11_fastai.errors import S11Error
from s11_fastai.runs.schema import (
    LOGIT_SCALE,
    MAX_EPOCHS,
    MAX_IMAGES,
    MAX_SIDE,
    SEED,
    WIDTH,
    Check,
    between,
    is_number,
    number,
    one_of,
    parsed,
    shown,
    text,
    whole,
)
from s11_fastai.streams import printable

_PATH = Check(
    "a path of at most 4,096 letters",
    lambda value: type(value) is str and len(value) <= 4_096 and "\0" not in value,
)
# A little within what records may hold: a schedule rounds.
_LR = number(1e-20, 1e5)
_BELOW_1 = Check("a number from 0 and below 1", lambda value: is_number(value) and 0 <= value < 1)
# The network halves it three times.
_SIDE = Check(
    f"a multiple of 8 from 32 to {MAX_SIDE:,}",
    lambda value: type(value) is int and 32 <= value <= MAX_SIDE and not value % 8,
)

_PEAK = 5 / 24  # the assignment's


def _setting(
    default: Any, words: str, check: Check, *, may_change: bool = False, before: Any = None
) -> Any:
    """`before` is what runs had before there was the setting, where that is not the default."""
    about = {"words": words, "check": check, "may_change": may_change, "before": before}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Settings:
    """All that defines a run. Raises S11Error for values that make no run.

    None leaves the choice to the program. A setting that `may_change` can be another when a
    stopped run goes on: where the images lie, and what computes.
    """

    data: str | None = _setting(
        None,
        "a folder or archive of images, or 'digits' (default: CIFAR-10)",
        _PATH,
        may_change=True,
    )
    epochs: int = _setting(24, "passes over the training images", whole(1, MAX_EPOCHS))
    bs: int = _setting(512, "images a batch", whole(1, 1_000_000))
    width: int = _setting(64, "channels of the first layer", WIDTH)
    seed: int = _setting(0, "random seed of weights, order and augmentation", SEED)
    lr_min: float | None = _setting(
        None, "lr at both ends of the cycle (default: a hundredth of the peak's)", _LR
    )
    lr_max: float | None = _setting(None, "lr at the peak (default: by the range test)", _LR)
    peak_epoch: int | None = _setting(
        None,
        "the peak comes after this epoch (default: 5 of 24, in proportion)",
        whole(1, MAX_EPOCHS),
    )
    momentum: float = _setting(0.9, "Nesterov momentum of SGD", between(0, 1))
    wd: float = _setting(5e-4, "weight decay of every parameter", number(0, 1e6))
    label_smoothing: float = _setting(
        0.2, "part of a label spread over all classes", _BELOW_1, before=0.0
    )
    logit_scale: float = _setting(0.125, "constant factor on the logits", LOGIT_SCALE, before=1.0)
    resize: int = _setting(32, "side to which other images are cut and resized", _SIDE)
    holdout: int = _setting(0, "evaluate this many held-out training images", whole(0, MAX_IMAGES))
    device: str | None = _setting(
        None, "cpu, cuda or mps (default: a GPU where there is one)", text(100), may_change=True
    )
    precision: str = _setting(
        "auto",
        "precision of training: auto, fp32, bf16 or fp16",
        one_of("auto", "fp32", "bf16", "fp16"),
        may_change=True,
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value, check = getattr(self, each.name), each.metadata["check"]
            if not (check.holds(value) or (value is None and each.default is None)):
                raise S11Error(f"`{each.name}` must be {check.words}, not {shown(value)}")
        if self.lr_min and self.lr_max and self.lr_min >= self.lr_max:
            raise S11Error(f"`lr_min` {self.lr_min:g} must be below `lr_max` {self.lr_max:g}")
        if self.peak_epoch is None and self.epochs > 1:
            object.__setattr__(self, "peak_epoch", max(1, round(_PEAK * self.epochs)))
        if self.peak_epoch and self.epochs <= self.peak_epoch:
            raise S11Error(
                f"`epochs` {self.epochs} must be above `peak_epoch` {self.peak_epoch}: give more "
                "epochs or an earlier peak"
            )

    @property
    def pct_start(self) -> float:
        """The part of the run after which the peak comes; that of a single epoch lies within it."""
        return self.peak_epoch / self.epochs if self.peak_epoch else _PEAK

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Settings:
        """The settings that have these values, and the default for the others.

        Raises S11Error, naming it, for an unknown setting and for a value of the wrong kind.
        """
        if unknown := sorted(values.keys() - setting_kinds().keys()):
            raise S11Error(f"{', '.join(map(shown, unknown[:5]))}: no such setting in this version")
        typed: dict[str, Any] = {name: _typed(name, value) for name, value in values.items()}
        return cls(**typed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for `config.json`."""
        return asdict(self)

    def differences(self, given: Mapping[str, object]) -> list[str]:
        """A word on each given setting that differs from this run's and may not."""
        return [
            f"`{each.name}` {_shown(theirs)} differs from the run's {_shown(own)}"
            for each in fields(self)
            if (own := getattr(self, each.name)) != (theirs := given.get(each.name, own))
            and not each.metadata["may_change"]
        ]


# Settings that belong together. The reference solution's are as its code and log tell them
# (github.com/Gilf641/EVA4, folder S11); what was wrong in it is not among them.
RECIPES: dict[str, dict[str, Any]] = {
    "reference": {
        "lr_min": 0.00088,
        "lr_max": 0.03,
        "momentum": 0.95,
        "wd": 0.0,
        "label_smoothing": 0.0,
        "logit_scale": 1.0,
    }
}


@cache
def setting_kinds() -> dict[str, type]:
    """The type of each setting's value, apart from None."""
    hints = get_type_hints(Settings)
    return {each.name: _without_none(hints[each.name]) for each in fields(Settings)}


def holds_run(path: Path) -> bool:
    """Whether a run has begun in the folder."""
    return (path / "config.json").exists()


def read_config(run: Path) -> Settings:
    """The settings of the run in a folder; raises S11Error where its `config.json` has none."""
    path = run / "config.json"
    try:
        values = parsed(path)
        if values is None:
            raise ValueError("it is missing")
        return Settings.from_dict(_before() | values)
    except (ValueError, S11Error) as error:
        raise S11Error(
            f"{path} is damaged or of another version ({error}): mend it, or choose another folder"
        ) from error


def _before() -> dict[str, Any]:
    """What the runs of older versions had for settings that there were not yet."""
    told = {each.name: each.metadata["before"] for each in fields(Settings)}
    return {name: value for name, value in told.items() if value is not None}


def updated(own: Settings, given: Mapping[str, Any]) -> Settings:
    """A run's own settings with those given that may change; raises S11Error for another."""
    if wrong := own.differences(given):
        raise S11Error(f"{'; '.join(wrong)}: leave it out, or choose another folder")
    return replace(own, **given)


def _typed(name: str, value: object) -> object:
    """A number as a float where the setting is one; what it must be is checked with the others."""
    if setting_kinds()[name] is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    return value


def _without_none(hint: Any) -> type:
    kinds = [kind for kind in getattr(hint, "__args__", (hint,)) if kind is not type(None)]
    return kinds[0]


def _shown(value: object) -> str:
    return "none (not given)" if value is None else printable(str(value))
