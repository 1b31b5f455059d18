"""Lay runs beside each other: one table, and one page or picture of their curves.

    python experiments/compare.py runs/a runs/b
    python experiments/compare.py runs/* --out compare.png

Finished runs of the same images and precision whose settings differ in the seed alone are shown as
one, with mean and standard deviation; so are unfinished ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from s11_fastai.cli import Parser, command_line, path_flag
from s11_fastai.errors import S11Error
from s11_fastai.runs.settings import holds_run
from s11_fastai.streams import say

if TYPE_CHECKING:
    from s11_fastai.report.groups import Group

# Letters of a name and of a setting's value, and values beside each other: 100 columns hold them.
_NAME, _VALUE, _AT_ONCE = 22, 14, 5


def main(argv: list[str] | None = None) -> None:
    """Print the table of the runs that the flags name, and lay their curves over each other."""
    with command_line(__file__):
        compare(parse(argv))


def compare(args: argparse.Namespace) -> None:
    from s11_fastai.report.comparison import write_comparison
    from s11_fastai.report.groups import group_by_settings
    from s11_fastai.runs.records import read_records

    groups = group_by_settings([read_records(path) for path in runs_among(args.runs)])
    say(format_table(groups))
    if args.out.suffix.lower() == ".html":
        say(f"their page is {write_comparison(args.out, groups)}")
    else:
        draw(groups, args.out)
        say(f"their curves are in {args.out}")


def runs_among(paths: Sequence[Path]) -> Sequence[Path]:
    """Those that hold a run, as a shell's * gives others too; all of them where none does."""
    others = [path for path in paths if path.exists() and not holds_run(path)]
    if len(others) == len(paths):
        return paths
    for path in others:
        say(f"left out: {path} holds no run")
    return [path for path in paths if path not in others]


def draw(groups: Sequence[Group], out: Path) -> None:
    """One picture of their curves; raises S11Error where no epoch is over."""
    from s11_fastai.plots import encoded, plot_comparison
    from s11_fastai.report.comparison import compared, other_losses
    from s11_fastai.storage import write_atomically

    figure = plot_comparison(list(compared(groups).values()), other_losses(groups))
    write_atomically(out, encoded(figure, out))


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="compare.py", description=__doc__)
    page = Path("compare.html")
    add = parser.add_argument
    add("runs", type=path_flag, nargs="+", metavar="RUN", help="the folder of a run")
    add(
        "--out",
        type=path_flag,
        default=page,
        help=f"a page (.html) or a picture (.png, .svg, .pdf) (default {page})",
    )
    args = parser.parse_args(argv)
    if args.out.suffix.lower() not in (".html", ".png", ".svg", ".pdf"):
        raise S11Error(f"--out {args.out} must end in .html, .png, .svg or .pdf")
    return args


def format_table(groups: Sequence[Group]) -> str:
    """The images, then a row for each group: accuracies and loss after the last epoch, best
    accuracy, time, bounds; mean and standard deviation where it has several runs. Below it a row
    for each setting in which they differ.
    """
    from s11_fastai.report.groups import differing_settings, epochs_of, images_of, measurements

    images = images_of(groups)
    one = len(set(images)) == 1
    header = ["", "run", "epochs", "final, %", "best, %", "loss", "min", "lr"]
    rows = [[g.key, _cut(g.name, _NAME), epochs_of(g.runs), *measurements(g.runs)] for g in groups]
    lines = images[:1] if one else [f"{g.key}  {i}" for g, i in zip(groups, images, strict=True)]
    lines += ["", *_aligned([header, *rows], left=2)]
    settings = differing_settings(groups)
    for start in range(0, len(groups) if settings else 0, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        cells = [
            [name, *(_cut(value, _VALUE) for value in values[part])]
            for name, values in settings.items()
        ]
        lines += ["", *_aligned([["", *(g.key for g in groups[part])], *cells], left=1)]
    return "\n".join(lines)


def _cut(text: str, most: int) -> str:
    """At most so many letters; of a path the end tells most."""
    return text if len(text) <= most else "…" + text[1 - most :]


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
