"""Runs beside each other: those that differ by chance alone are a group, with their means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, geometric_mean, stdev

from s11_fastai.callbacks.recording import EpochRow, best_of
from s11_fastai.runs.records import Records
from s11_fastai.streams import one_line

# What may differ between runs of one group.
_CHANCE = ("seed", "device", "data")
# What the tables of results say already.
_SHOWN = ("epochs", "lr_min", "lr_max")


@dataclass(frozen=True)
class Group:
    """Runs of the same images and settings, all of them finished or none; no two have the same
    seed. `key` is a letter for it."""

    key: str
    name: str
    runs: tuple[Records, ...]

    @property
    def config(self) -> dict:
        """The settings, which are the same in all runs but for what is left to chance."""
        return self.runs[0].config

    @property
    def label(self) -> str:
        """What it is called in pictures."""
        return one_line(f"{self.key}  {self.name}")

    @property
    def fingerprint(self) -> str:
        """The first digits of its images' own; "unknown" of old runs."""
        return str(self.runs[0].env.get("data_fingerprint") or "unknown")[:12]


def group_by_settings(runs: Sequence[Records]) -> list[Group]:
    """Put finished runs of the same images, settings and precision into one group, in the order
    given, and so those that are not over.

    The seed may differ, and where it ran: the device, and the place where the images lay.
    A folder that is given twice counts once; a run whose seed is already in its group stands alone.
    """
    found: dict[tuple, list[Records]] = {}
    for run in {run.path.resolve(): run for run in runs}.values():
        same = {name: _used(run, name) for name in run.config if name not in _CHANCE}
        images = run.env.get("data_fingerprint") or run.data
        key = images, bool(run.results), *same.items()
        if any(run.config["seed"] == other.config["seed"] for other in found.get(key, [])):
            key = run.path.resolve(), *key
        found.setdefault(key, []).append(run)
    names = names_of([members[0].path for members in found.values()])
    return [
        Group(_letters(i), _with_seeds(name, len(members)), tuple(members))
        for i, (name, members) in enumerate(zip(names, found.values(), strict=True))
    ]


def names_of(paths: Sequence[Path]) -> list[str]:
    """Of each path the last parts, as many as tell it from the others."""
    parts = [path.resolve().parts for path in paths]
    return [
        "/".join(own[-n:])
        for own in parts
        for n in [next(n for n in range(1, len(own) + 1) if _count(parts, own[-n:]) == 1)]
    ]


def images_of(groups: Sequence[Group]) -> list[str]:
    """Which images each group was trained and evaluated on; others of one name by fingerprint."""
    names = [f"{group.runs[0].data}, {group.runs[0].evaluated_on} images" for group in groups]
    prints = [group.fingerprint for group in groups]
    alike = {name: {p for n, p in zip(names, prints, strict=True) if n == name} for name in names}
    return [
        f"{name}, fingerprint {own}" if len(alike[name]) > 1 else name
        for name, own in zip(names, prints, strict=True)
    ]


def differing_settings(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The values of each setting in which the groups differ, one for each group."""
    names = [name for name in groups[0].config if name not in (*_CHANCE, *_SHOWN)]
    values = {name: [_shown(_used(group.runs[0], name)) for group in groups] for name in names}
    return {name: own for name, own in values.items() if len(set(own)) > 1}


def common_epochs(runs: Sequence[Records]) -> list[list[EpochRow]]:
    """The epochs of each run of a group, as many as all have of which one is over."""
    histories = [run.history for run in runs if run.history]
    return [rows[: min(map(len, histories))] for rows in histories]


def epochs_of(runs: Sequence[Records]) -> str:
    """How many epochs the runs of a group have in common, and of how many if these are not all."""
    found, planned = common_epochs(runs), runs[0].settings.epochs
    done = len(found[0]) if found else 0
    return str(planned) if done == planned else f"{done} of {planned}"


def measurements(runs: Sequence[Records]) -> list[str]:
    """Of the runs of a group: final and best accuracy in percent, and the final loss, each with its
    standard deviation where there are several; their mean time in minutes; the bounds of the lr.

    They are of the epochs that all of these runs have. A run of which no epoch is over does not
    count; without any, each is "-".
    """
    histories = common_epochs(runs)
    if not histories:
        return ["-"] * 5
    bounds = [run.bounds for run in runs if run.history and run.bounds]
    bests = [best for rows in histories if (best := best_of(rows))]
    return [
        mean_and_std([100 * rows[-1].valid_accuracy for rows in histories], ".2f"),
        mean_and_std([100 * best.valid_accuracy for best in bests], ".2f"),
        mean_and_std([rows[-1].valid_loss for rows in histories], ".3f"),
        _three_digits(fmean(sum(row.seconds for row in rows) for rows in histories) / 60),
        "-".join(
            _geometric_mean([getattr(found, name) for found in bounds])
            for name in ("lr_min", "lr_max")
        ),
    ]


def mean_and_std(values: Sequence[float], form: str) -> str:
    """The value where there is one, and "-" without any; mean and standard deviation of several.

    `form` is a format of floats, as ".2f"; its "+" is for the mean alone.
    """
    if not values:
        return "-"
    if len(values) == 1 or not all(map(math.isfinite, values)):
        return format(fmean(values), form)
    return f"{fmean(values):{form}} ± {stdev(values):{form.lstrip('+')}}"


def _three_digits(minutes: float) -> str:
    """A number with three digits, or all that it has before the point."""
    return f"{minutes:.0f}" if minutes >= 100 else f"{minutes:.3g}"


def _used(run: Records, name: str) -> object:
    """The value of a setting; of the precision, what `auto` came to."""
    return run.env.get("precision", "auto") if name == "precision" else run.config[name]


def _count(paths: Sequence[tuple[str, ...]], ending: tuple[str, ...]) -> int:
    return sum(path[-len(ending) :] == ending for path in paths)


def _letters(i: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    return (_letters(i // 26 - 1) if i >= 26 else "") + chr(ord("A") + i % 26)


def _with_seeds(name: str, n: int) -> str:
    return name if n == 1 else f"{name}, {n} seeds"


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def _geometric_mean(values: Sequence[float]) -> str:
    return f"{geometric_mean(values):.2g}" if values else "-"
