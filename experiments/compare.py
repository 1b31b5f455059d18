"""Lay runs beside each other: one table and one picture."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, geometric_mean, stdev
from typing import TYPE_CHECKING

from s11_fastai.cli import Parser, command_line, path_flag
from s11_fastai.errors import S11Error
from s11_fastai.streams import one_line

if TYPE_CHECKING:
    from s11_fastai.plots.curves import ComparedRuns
    from s11_fastai.runs.records import Records

# What may differ between runs that differ by chance alone.
_CHANCE = ("seed", "device", "data")
# What the columns of the table say already.
_SHOWN = ("epochs", "lr_min", "lr_max")
# Letters of a name and of a setting's value, and values beside each other: 100 columns hold them.
_NAME, _VALUE, _AT_ONCE = 22, 14, 5


def main(argv: list[str] | None = None) -> None:
    """Print the table of the runs that the flags name and draw their curves."""
    with command_line(__file__):
        compare(parse(argv))


def compare(args: argparse.Namespace) -> None:
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    from s11_fastai import say
    from s11_fastai.plots import plot_comparison
    from s11_fastai.report.pictures import write_figure
    from s11_fastai.runs.records import read_records
    from s11_fastai.storage import Folder

    groups = group_by_settings([read_records(path) for path in args.runs])
    say(format_table(groups))
    lines = [line for group in groups if (line := curves_of(group))]
    if not lines:
        raise S11Error("no epoch of these runs is over: there is no curve to draw")
    write_figure(Folder(args.out.parent), args.out.name, plot_comparison(lines))
    say(f"their curves are in {args.out}")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="compare.py", description=__doc__)
    picture = Path("compare.png")
    add = parser.add_argument
    add("runs", type=path_flag, nargs="+", metavar="RUN", help="the folder of a run")
    add("--out", type=path_flag, default=picture, help=f"the picture (default {picture})")
    args = parser.parse_args(argv)
    if args.out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise S11Error(f"--out {args.out} must end in .png, .svg or .pdf")
    return args


@dataclass(frozen=True)
class Group:
    """Runs of the same images and settings; no two have the same seed. `key` is a letter for it."""

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


def group_by_settings(runs: Sequence[Records]) -> list[Group]:
    """Put runs that differ in the seed alone into one group, in the order they are given in.

    A folder that is given twice counts once; a run whose seed is already in its group stands alone.
    """
    found: dict[tuple, list[Records]] = {}
    for run in {run.path.resolve(): run for run in runs}.values():
        same = {name: value for name, value in run.config.items() if name not in _CHANCE}
        key = run.env.get("data_fingerprint"), bool(run.results), *same.items()
        if any(run.config["seed"] == other.config["seed"] for other in found.get(key, [])):
            key = run.path.resolve(), *key
        found.setdefault(key, []).append(run)
    names = _names([members[0].path for members in found.values()])
    return [
        Group(_letters(i), _with_seeds(name, len(members)), tuple(members))
        for i, (name, members) in enumerate(zip(names, found.values(), strict=True))
    ]


def format_table(groups: Sequence[Group]) -> str:
    """The images, then a row for each group: accuracies and loss after the last epoch, best
    accuracy, time, bounds; mean and standard deviation where it has several runs. Below it a row
    for each setting in which they differ.
    """
    images = {g.key: f"{g.runs[0].data}, {g.runs[0].evaluated_on} images" for g in groups}
    one = len(set(images.values())) == 1
    header = ["", "run", "epochs", "final, %", "best, %", "loss", "min", "lr"]
    rows = [[g.key, _cut(g.name, _NAME), _epochs(g), *_measurements(g)] for g in groups]
    lines = [images[groups[0].key]] if one else [f"{key}  {name}" for key, name in images.items()]
    lines += ["", *_aligned([header, *rows], left=2)]
    settings = _differing_settings(groups)
    for start in range(0, len(groups) if settings else 0, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        cells = [[name, *values[part]] for name, values in settings.items()]
        lines += ["", *_aligned([["", *(g.key for g in groups[part])], *cells], left=1)]
    return "\n".join(lines)


def _differing_settings(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The values of each setting in which the groups differ, one for each group."""
    names = [name for name in groups[0].config if name not in (*_CHANCE, *_SHOWN)]
    values = {name: [_cut(_shown(g.config[name]), _VALUE) for g in groups] for name in names}
    return {name: own for name, own in values.items() if len(set(own)) > 1}


def curves_of(group: Group) -> ComparedRuns | None:
    """Accuracies and losses of a group's runs, for as many epochs as all of them have; None where
    no epoch is over."""
    import numpy as np

    from s11_fastai.plots.curves import ComparedRuns

    histories = [run.history for run in group.runs if run.history]
    if not histories:
        return None
    length = min(map(len, histories))
    rows = [history[:length] for history in histories]
    accuracies = 100 * np.asarray([[row.valid_accuracy for row in history] for history in rows])
    losses = np.asarray([[row.valid_loss for row in history] for history in rows])
    return ComparedRuns(group.label, accuracies, losses)


def _names(paths: Sequence[Path]) -> list[str]:
    """Of each path the last parts, as many as tell it from the others."""
    parts = [path.resolve().parts for path in paths]
    return [
        "/".join(own[-n:])
        for own in parts
        for n in [next(n for n in range(1, len(own) + 1) if _count(parts, own[-n:]) == 1)]
    ]


def _count(paths: Sequence[tuple[str, ...]], ending: tuple[str, ...]) -> int:
    return sum(path[-len(ending) :] == ending for path in paths)


def _letters(i: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    return (_letters(i // 26 - 1) if i >= 26 else "") + chr(ord("A") + i % 26)


def _with_seeds(name: str, n: int) -> str:
    return name if n == 1 else f"{name}, {n} seeds"


def _cut(text: str, most: int) -> str:
    """At most so many letters; of a path the end tells most."""
    return text if len(text) <= most else "…" + text[1 - most :]


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def _epochs(group: Group) -> str:
    """How many epochs are over, and of how many, where that is not all."""
    done, planned = {len(run.history) for run in group.runs}, group.config["epochs"]
    if done == {planned}:
        return str(planned)
    return f"{min(done)}-{max(done)} of {planned}" if len(done) > 1 else f"{min(done)} of {planned}"


def _measurements(group: Group) -> list[str]:
    """What the columns from "final" on say."""
    runs = [run for run in group.runs if run.history]
    if not runs:
        return ["-"] * 5
    bounds = [run.bounds for run in runs if run.bounds]
    percent = "{:.2f}".format
    return [
        _mean_and_std([100 * run.history[-1].valid_accuracy for run in runs], percent),
        _mean_and_std([100 * run.best.valid_accuracy for run in runs if run.best], percent),
        _mean_and_std([run.history[-1].valid_loss for run in runs], "{:.3f}".format),
        f"{fmean(sum(row.seconds for row in run.history) for run in runs) / 60:.3g}",
        "-".join(
            _geometric_mean([getattr(found, name) for found in bounds])
            for name in ("lr_min", "lr_max")
        ),
    ]


def _mean_and_std(values: Sequence[float], form: Callable[[float], str]) -> str:
    """The value where there is one; mean and standard deviation where there are several."""
    if not values:
        return "-"
    if len(values) == 1 or not all(map(math.isfinite, values)):
        return form(fmean(values))
    return f"{form(fmean(values))} ± {form(stdev(values))}"


def _geometric_mean(values: Sequence[float]) -> str:
    return f"{geometric_mean(values):.2g}" if values else "-"


def _aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines with columns as wide as they must be; the first `left` of them begin at the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


if __name__ == "__main__":
    main()
