"""Lay runs beside each other: one table and one picture."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from s11_fastai.cli import Parser, command_line, path_flag
from s11_fastai.errors import S11Error, printable

if TYPE_CHECKING:
    from s11_fastai.plots.curves import ComparedRuns
    from s11_fastai.runs.records import Records

# What may differ between runs that differ by chance alone.
_CHANCE = ("seed", "device", "data")


def main(argv: list[str] | None = None) -> None:
    """Print the table of the runs that the flags name and draw their curves."""
    with command_line(__file__):
        compare(parse(argv))


def compare(args: argparse.Namespace) -> None:
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    from s11_fastai.plots import plot_comparison
    from s11_fastai.report.pictures import write_figure
    from s11_fastai.runs.records import read_records

    groups = group_by_settings([read_records(path) for path in args.runs])
    print(printable(format_table(groups)))
    lines = [line for group in groups if (line := curves_of(group))]
    if not lines:
        raise S11Error("no epoch of these runs is over: there is no curve to draw")
    write_figure(args.out, plot_comparison(lines))
    print(f"their curves are in {args.out}")


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
    """Runs of the same images and settings; no two have the same seed."""

    name: str
    runs: tuple[Records, ...]

    @property
    def config(self) -> dict:
        """The settings, which are the same in all runs but for what is left to chance."""
        return self.runs[0].config


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
    return [Group(_name(members), tuple(members)) for members in found.values()]


def format_table(groups: Sequence[Group]) -> str:
    """Aligned columns: accuracy and loss after the last epoch, best accuracy, seconds, bounds, and
    the settings in which the groups differ; mean and standard deviation where there are several.
    """
    differing = [
        name
        for name in groups[0].config
        if name not in (*_CHANCE, "epochs") and len({str(g.config[name]) for g in groups}) > 1
    ]
    header = ["run", "images", "epochs", "final", "best", "loss", "seconds", "LRMIN", "LRMAX"]
    rows = [[*header, *differing]]
    for group in groups:
        settings = ["-" if (v := group.config[n]) is None else str(v) for n in differing]
        rows.append(
            [group.name, group.runs[0].data, _epochs(group), *_measurements(group), *settings]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows)


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
    return ComparedRuns(group.name, accuracies, losses)


def _name(runs: Sequence[Records]) -> str:
    first, more = runs[0].path.resolve().name, len(runs) - 1
    if not more:
        return first
    return f"{first} and {more} more seed{'s' if more > 1 else ''}"


def _epochs(group: Group) -> str:
    """How many epochs are over, and of how many, where that is not all."""
    done, planned = {len(run.history) for run in group.runs}, group.config["epochs"]
    if done == {planned}:
        return str(planned)
    return f"{min(done)}-{max(done)} of {planned}" if len(done) > 1 else f"{min(done)} of {planned}"


def _measurements(group: Group) -> list[str]:
    """What the six columns from "final" on say."""
    runs = [run for run in group.runs if run.history]
    if not runs:
        return ["-"] * 6
    bounds = [run.bounds for run in runs if run.bounds]
    percent, lr = "{:.2f}%".format, "{:.3g}".format
    return [
        _mean_and_std([100 * run.history[-1].valid_accuracy for run in runs], percent),
        _mean_and_std([100 * run.best.valid_accuracy for run in runs if run.best], percent),
        _mean_and_std([run.history[-1].valid_loss for run in runs], "{:.4f}".format),
        _mean_and_std([sum(row.seconds for row in run.history) for run in runs], "{:.0f}".format),
        _mean_and_std([found.lr_min for found in bounds], lr),
        _mean_and_std([found.lr_max for found in bounds], lr),
    ]


def _mean_and_std(values: Sequence[float], form: Callable[[float], str]) -> str:
    """The value where there is one; mean and standard deviation where there are several."""
    if not values:
        return "-"
    if len(set(values)) == 1:
        return form(values[0])
    return f"{form(fmean(values))} ± {form(stdev(values))}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join(left + right).rstrip()


if __name__ == "__main__":
    main()
