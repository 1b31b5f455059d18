"""Runs beside each other: what they reached and in what they differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s11_fastai.runs.records import Records
from s11_fastai.runs.settings import DEFAULTS

# What may differ between runs that are the same but for chance.
_CHANCE = ("seed", "device", "data")


@dataclass(frozen=True)
class Group:
    """Runs of the same images and settings, which differ in the seed at most."""

    name: str
    runs: tuple[Records, ...]


def group(runs: Sequence[Records]) -> list[Group]:
    """Join runs that differ only in the seed, in the order in which they are given.

    A folder given twice counts once; a run with a seed that its group has already stands alone.
    """
    found: dict[tuple, list[Records]] = {}
    for run in {run.path.resolve(): run for run in runs}.values():
        same = {name: value for name, value in run.config.items() if name not in _CHANCE}
        key = run.env.get("data_fingerprint"), bool(run.results), *same.items()
        if any(run.config["seed"] == other.config["seed"] for other in found.get(key, [])):
            key = run.path.resolve(), *key
        found.setdefault(key, []).append(run)
    return [Group(_name(members), tuple(members)) for members in found.values()]


def table(groups: Sequence[Group]) -> str:
    """Aligned columns: accuracies and loss of the last epoch, best accuracy, seconds, bounds, and
    the settings in which the groups differ; mean and standard deviation where there are several.
    """
    differing = [
        name
        for name in DEFAULTS
        if name not in (*_CHANCE, "epochs")
        and len({str(each.runs[0].config[name]) for each in groups}) > 1
    ]
    header = ["run", "images", "epochs", "final", "best", "loss", "seconds", "LRMIN", "LRMAX"]
    rows = [[*header, *differing]]
    for each in groups:
        settings = [_shown(each.runs[0].config[name]) for name in differing]
        rows.append([each.name, each.runs[0].data, _epochs(each), *_figures(each), *settings])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        left = [cell.ljust(w) for cell, w in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(w) for cell, w in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(left + right).rstrip())
    return "\n".join(lines)


def _name(runs: Sequence[Records]) -> str:
    names = [run.path.resolve().name for run in runs]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more seeds"


def _epochs(each: Group) -> str:
    """How many are over, of how many where that is not all."""
    done, planned = {len(run.history) for run in each.runs}, each.runs[0].config["epochs"]
    if done == {planned}:
        return str(planned)
    return f"{min(done)}-{max(done)} of {planned}" if len(done) > 1 else f"{min(done)} of {planned}"


def _figures(each: Group) -> list[str]:
    runs = [run for run in each.runs if run.history]
    if not runs:
        return ["-"] * 6
    percent, last = "{:.2f}%".format, [run.history[-1] for run in runs]
    return [
        _spread([100 * row.valid_accuracy for row in last], percent),
        _spread([100 * run.best.valid_accuracy for run in runs], percent),
        _spread([row.valid_loss for row in last], "{:.4f}".format),
        _spread([sum(row.seconds for row in run.history) for run in runs], "{:.0f}".format),
        *(
            _spread([getattr(run.bounds, name) for run in runs if run.bounds], "{:.3g}".format)
            for name in ("lr_min", "lr_max")
        ),
    ]


def _spread(values: Sequence[float], form) -> str:
    """One value, or mean and standard deviation of several."""
    if not values:
        return "-"
    if len(values) == 1 or len(set(values)) == 1:
        return form(values[0])
    return f"{form(np.mean(values))} ± {form(np.std(values, ddof=1))}"


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
