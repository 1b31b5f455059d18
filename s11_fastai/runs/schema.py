"""What the records of a run folder hold: each field with its kind and its range.

A folder may be a stranger's, or damaged. Whatever reads a record has its values checked here first,
so that what comes after can rely on them. The fields of `config.json` are those of `Settings`.
"""

import json
import re
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from s11_fastai.errors import S11Error
from s11_fastai.streams import is_printable

MAX_RECORD, MAX_TABLE = 1 << 20, 128 << 20  # bytes
MAX_STEPS = MAX_TABLE // 80  # a row of steps.csv is shorter
MAX_EPOCHS, MAX_IMAGES, MAX_SIDE = 100_000, 10**9, 1_024
_LARGEST_FLOAT32 = 3.5e38
# What brings back a file of a run that is missing or damaged.
WAY_BACK = (
    "while the run has a checkpoint, resuming it writes it again; else mend it, bring back a copy, "
    "or make the run again in another folder"
)


class Check(NamedTuple):
    """What a value must be, in words and as a test of values of any kind."""

    words: str
    holds: Callable[[Any], bool]


def whole(least: int, most: int) -> Check:
    words = f"a whole number from {least:,} to {most:,}"
    return Check(words, lambda value: type(value) is int and least <= value <= most)


def number(least: float, most: float) -> Check:
    words = f"a number from {least:g} to {most:g}"
    return Check(words, lambda value: is_number(value) and least <= value <= most)


def between(least: float, most: float) -> Check:
    words = f"a number above {least:g} and below {most:g}"
    return Check(words, lambda value: is_number(value) and least < value < most)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def text(most: int = 300) -> Check:
    return Check(
        f"printable text of at most {most} letters",
        lambda value: type(value) is str and len(value) <= most and is_printable(value),
    )


def one_of(*names: str) -> Check:
    return Check(f"one of {', '.join(names)}", lambda value: type(value) is str and value in names)


def or_none(check: Check) -> Check:
    return Check(f"{check.words}, or null", lambda value: value is None or check.holds(value))


def many(check: Check, least: int, most: int) -> Check:
    return Check(
        f"a list of {least:,} to {most:,} values, each {check.words}",
        lambda value: (
            type(value) is list and least <= len(value) <= most and all(map(check.holds, value))
        ),
    )


LR, FRACTION, SEED = number(1e-30, 1e6), number(0, 1), whole(0, 2**63 - 1)
LOSS = number(0, _LARGEST_FLOAT32)
# The loss on the evaluated images may be of an epoch that diverged.
_ANY_LOSS = Check(
    f"{LOSS.words}, inf or nan",
    lambda value: LOSS.holds(value) or (is_number(value) and str(value) in ("inf", "nan")),
)
WIDTH, LOGIT_SCALE = whole(1, 1_000_000), number(1e-6, 1e6)
CHANNELS = many(FRACTION, 3, 3)
_SECONDS, _EPOCH = number(0, 1e9), whole(1, MAX_EPOCHS)
# The name of a file in escapes, at the most.
_DATA = text(2_000)
_HASH = Check(
    "64 hexadecimal digits",
    lambda value: type(value) is str and re.fullmatch("[0-9a-f]{64}", value) is not None,
)

ENV = {
    **dict.fromkeys(("python", "fastai", "torch", "torchvision", "albumentations"), text()),
    **dict.fromkeys(("numpy", "pillow", "safetensors", "scikit-learn"), text()),
    **dict.fromkeys(("system", "device", "device_name", "precision"), text()),
    **dict.fromkeys(("threads", "processes"), whole(1, 1_000_000)),
    "git_revision": or_none(text()),
    "data": _DATA,
    "data_fingerprint": _HASH,
    "train_images": whole(1, MAX_IMAGES),
    "test_images": whole(1, MAX_IMAGES),
    "held-out_images": whole(1, MAX_IMAGES),
    "classes": whole(1, MAX_IMAGES),
    "resumed": Check("a list", lambda value: type(value) is list),
}
BOUNDS = {"lr_min": LR, "lr_max": LR, "lrs": many(LR, 0, 10_000), "losses": many(LOSS, 0, 10_000)}
RESULTS = {
    "params": whole(1, 10**12),
    "epochs": _EPOCH,
    "final_accuracy": FRACTION,
    "best_accuracy": FRACTION,
    "best_epoch": _EPOCH,
    "lr_min": LR,
    "lr_max": LR,
    "seed": SEED,
    "data": _DATA,
    "evaluated_on": one_of("test", "held-out"),
}
HISTORY = {
    "epoch": _EPOCH,
    "train_loss": _ANY_LOSS,
    "train_accuracy": FRACTION,
    "valid_loss": _ANY_LOSS,
    "valid_accuracy": FRACTION,
    "lr": LR,
    "seconds": _SECONDS,
}
_NAMED = Check("names and values", lambda value: type(value) is dict)
# What a run keeps in a checkpoint; of the state of the fit, what the run itself looks at.
CHECKPOINT = dict.fromkeys(("settings", "env", "bounds", "best", "learner"), _NAMED)
FIT = {
    "epoch": whole(0, MAX_EPOCHS),
    "batch": whole(0, 10**9),
    "train_iter": whole(0, 10**12),
    "model": _NAMED,
    "callbacks": _NAMED,
}
# What a file of weights says beside them; it may have such a claim as well.
CLAIM = {"accuracy": FRACTION, "loss": _ANY_LOSS, "data": _DATA, "data_fingerprint": _HASH}
WEIGHTS = {
    "network": one_of("S11ResNet"),
    "width": WIDTH,
    "logit_scale": LOGIT_SCALE,
    "classes": many(text(100), 1, 1_000),
    "side": whole(32, MAX_SIDE),
    "mean": CHANNELS,
    "std": CHANNELS,
}
# What `report/` keeps for the page: a value for each class; and why a run diverged.
_COUNTS = many(whole(0, MAX_IMAGES), 1, 1_000)
_CONFUSED = Check(
    "two names of classes and a number",
    lambda value: (
        type(value) is list and [type(each) for each in value] == [str, str, int] and value[2] >= 0
    ),
)
CLASSES = {
    "weights": one_of("final", "best", "checkpoint"),
    "split": one_of("test", "held-out"),
    "classes": many(text(), 1, 1_000),
    **dict.fromkeys(("images", "predicted", "correct"), _COUNTS),
    "confused": many(_CONFUSED, 0, 1_000),
}
CLASSES_EPOCH = or_none(whole(0, MAX_EPOCHS))  # which the first versions did not note
DIVERGED = {"why": text(1_000)}
STEPS = {"step": whole(0, 10**9), "lr": LR, "momentum": FRACTION, "loss": _ANY_LOSS}


def read_json(path: Path, fields: Mapping[str, Check], required: bool = True) -> dict | None:
    """The values of a record whose fields are these, or None where there is no file.

    Any may be missing where they are not all `required`, and others may be there, of printable
    text. Raises S11Error, naming the file and the field, for anything else, and OSError where it
    cannot be read.
    """
    try:
        found = parsed(path)
        if found is not None:
            check_fields(found, fields, required)
    except ValueError as error:
        raise damaged(path, str(error)) from error
    return found


def parsed(path: Path) -> dict | None:
    """The JSON object in a file, or None where there is no file; raises ValueError and OSError."""
    content = read_whole(path, MAX_RECORD)
    if content is None:
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("it holds no names and values")
    return found


def read_whole(path: Path, most: int) -> str | None:
    """The text of a file, or None where there is none; raises ValueError and OSError."""
    if not path.exists():
        return None
    if not path.is_file():
        raise ValueError("it is no plain file")
    if path.stat().st_size > most:
        raise ValueError(f"it has more than {most:,} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8") from error


def check_fields(found: object, fields: Mapping[str, Check], required: bool = True) -> None:
    """Raise ValueError, naming the field, as `read_json` does."""
    check_kinds(found, fields, required)
    odd = _unprintable(found)
    if odd is not None:
        raise ValueError(f"{shown(odd)} is no printable text")


def check_kinds(found: object, fields: Mapping[str, Check], required: bool = True) -> None:
    """As `check_fields`, of these fields alone."""
    if not isinstance(found, dict):
        raise ValueError("it holds no names and values")
    for name, check in fields.items():
        if name in found and not check.holds(found[name]):
            raise ValueError(f"{name!r} must be {check.words}, not {shown(found[name])}")
        if required and name not in found:
            raise ValueError(f"{name!r} is missing")


def damaged(path: Path, why: str) -> S11Error:
    return S11Error(f"{path} is damaged ({why}): {WAY_BACK}")


def shown(value: object) -> str:
    """Any value in a few printable letters."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60


def _unprintable(values: object) -> str | None:
    """The first text anywhere inside that is not printable."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and not is_printable(value):
            return value
    return None
