"""Make all pictures and the page of a run again, from its folder and its images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from s11_fastai.cli import Parser, command_line, path_flag

if TYPE_CHECKING:
    from s11_fastai.runs.records import Records
    from s11_fastai.storage import Folder


def main(argv: list[str] | None = None) -> None:
    """Draw everything again of the run that the flags name."""
    with command_line(__file__):
        interpret(parse(argv))


def interpret(args: argparse.Namespace) -> None:
    """All pictures once an epoch is over, and the page in any case."""
    from s11_fastai import say
    from s11_fastai.report.facts import state_of
    from s11_fastai.report.page import write_page
    from s11_fastai.runs.lock import opened
    from s11_fastai.runs.records import read_records

    with opened(args.run) as folder:
        records = read_records(args.run)
        if records.history:
            draw(folder, records, args)
        page = write_page(folder, records, state_of(records))
    figures = f"the pictures are in {args.run / 'figures'}"
    say(f"{figures if records.history else 'no epoch is over yet'}; the page is {page}")


def draw(folder: Folder, records: Records, args: argparse.Namespace) -> None:
    """All pictures of a run, those of predictions with the weights that it has."""
    from s11_fastai import load_run
    from s11_fastai.report.pictures import draw_images, draw_predictions, draw_records
    from s11_fastai.runs.whole import WEIGHTS

    learn = load_run(args.run, weights=args.weights, data=args.data, device=args.device)
    draw_images(folder, learn)
    draw_records(folder, records)
    which, epoch = args.weights, len(records.history)
    if which == "best":
        assert records.best  # an epoch is over
        epoch = records.best.epoch
    elif not (args.run / WEIGHTS["final"]).is_file():
        which, epoch = "checkpoint", -(-learn.train_iter // len(learn.dls.train))
    draw_predictions(folder, learn, records.settings.seed, which, epoch)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="interpret.py", description=__doc__)
    add = parser.add_argument
    add("run", type=path_flag, help="the folder of a run")
    add(
        "--weights",
        choices=("final", "best"),
        default="final",
        help="of the final or of the best epoch (default final)",
    )
    add("--data", help="where the images are now, if they have moved")
    parser.add_device()
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
