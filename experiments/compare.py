"""Lay runs beside each other: one table and one picture."""

import argparse
import warnings
from pathlib import Path

from s11_fastai.cli import Parser, command_line
from s11_fastai.errors import S11Error, printable


def main(argv: list[str] | None = None) -> None:
    """Print the table of the runs that the flags name and draw their curves."""
    with command_line("compare.py"):
        compare(parse(argv))


def compare(args: argparse.Namespace) -> None:
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    from s11_fastai.comparison import group, table
    from s11_fastai.plots import plot_comparison
    from s11_fastai.report.pictures import write_figure
    from s11_fastai.runs.records import read_records

    groups = group([read_records(path) for path in args.runs])
    print(printable(table(groups)))
    drawn = [(each.name, [run.history for run in each.runs if run.history]) for each in groups]
    drawn = [(name, histories) for name, histories in drawn if histories]
    if not drawn:
        raise S11Error("no epoch of these runs is over: there is no curve to draw")
    write_figure(args.out, plot_comparison(drawn))
    print(f"their curves are in {args.out}")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="compare.py", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the folder of a run")
    parser.add_argument(
        "--out", type=Path, default=Path("compare.png"), help="the picture (default compare.png)"
    )
    args = parser.parse_args(argv)
    if args.out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise S11Error(f"--out {args.out} must end in .png, .svg or .pdf")
    return args


if __name__ == "__main__":
    main()
