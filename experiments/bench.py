"""How fast the project is, beside what bounds it and beside its peers.

input       augmented batches without a network, on one core (with --workers on all of them)
step        one training step of the network, in float32 and in the device's default precision
memory      the most that two steps take
start       whole processes: decoding all files, the first batch, run.py --help
evaluation  predicting, drawing and writing the page when training is over
together    two runs at once on one machine, beside one alone
epoch       a whole epoch, evaluation included
run         run.py from its beginning to its end

Without --only: on a CPU all but the last two, which take hours there; with --device cuda input,
step, evaluation, epoch and run.

The sides of a section take turns: in each round each of them is measured once, after a round
that is not counted, so that whatever else the machine does falls on all alike. What is shown is
the median of a side's values, and the median of its ratios, within the rounds, to this project.
Memory, evaluation, together and run are measured once.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from s11_fastai.cli import Parser, command_line, path_flag
from s11_fastai.errors import S11Error
from s11_fastai.streams import say

if TYPE_CHECKING:
    import torch
    from benchmark.timing import Table

    from s11_fastai.sources import ImageSet

ON_CPU = ["input", "step", "memory", "start", "evaluation", "together"]
ON_CUDA = ["input", "step", "evaluation", "epoch", "run"]
SECTIONS = [*ON_CPU, "epoch", "run"]
DEFAULTS = {"device": "cpu", "workers": 0, "rounds": 5, "width": 64, "bs": 512}
LEAST = {"workers": 0, "rounds": 1, "width": 1, "bs": 1}


def main(argv: list[str] | None = None) -> None:
    """Measure what the flags name and print it."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network
    with command_line(__file__):
        bench(parse(argv))


def bench(args: argparse.Namespace) -> None:
    """Images; a table for each section; then all of them, and the page where one is asked for."""
    from benchmark.tables import as_json, as_markdown, as_text, facts_of

    from s11_fastai.environment import pick_device
    from s11_fastai.sources import load_all
    from s11_fastai.storage import write_atomically

    device = pick_device(args.device)
    images = load_all(args.data, needs_test=False)
    if not len(images.valid.labels):
        raise S11Error(f"{images.name} has no test images, which the bench needs: give others")
    facts = facts_of(args, DEFAULTS, device, images.name)
    tables: list[Table] = []
    try:
        for section in sections_of(args):
            print(f"measuring: {section}", file=sys.stderr)
            tables.append(measure(section, images, args, device))
    finally:  # what was measured before an error or a signal is not lost
        if tables:
            say(as_json(tables, facts) if args.json else as_text(tables))
    if args.out:
        write_atomically(args.out, as_markdown(tables, facts))


def sections_of(args: argparse.Namespace) -> list[str]:
    """Those that are measured; of the others that were asked for, it says that they are not."""
    if args.device != "cuda":
        return args.only or ON_CPU
    for section in args.only or SECTIONS:
        if section not in ON_CUDA:
            print(f"skipped: {section}, which is of the CPU alone", file=sys.stderr)
    return [section for section in args.only or ON_CUDA if section in ON_CUDA]


def measure(
    section: str, images: ImageSet, args: argparse.Namespace, device: torch.device
) -> Table:
    """The table of one section."""
    from benchmark import inputs, processes, steps, whole

    data, width, bs, rounds = args.data, args.width, args.bs, args.rounds
    tables = {
        "input": lambda: inputs.measure_input(images, bs, args.workers, rounds, device),
        "step": lambda: steps.measure_step(images, width, bs, rounds, device),
        "memory": lambda: processes.measure_memory(images, data, width, bs),
        "start": lambda: processes.measure_start(data, bs, rounds),
        "evaluation": lambda: whole.measure_evaluation(images, width, bs, device),
        "together": lambda: processes.measure_together(data, width, bs, rounds),
        "epoch": lambda: whole.measure_epoch(images, width, bs, rounds, device),
        "run": lambda: whole.measure_run(data, width, bs, device),
    }
    return tables[section]()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags; raises S11Error for those that make no measurement."""
    args = parser().parse_args(argv)
    for name, least in LEAST.items():
        if getattr(args, name) < least:
            raise S11Error(f"--{name} must be {least} or more")
    if args.out and args.out.suffix != ".md":
        raise S11Error(f"--out {args.out} must end in .md")
    if args.device == "cpu" and "start" in (args.only or ON_CPU) and not args.data:
        raise S11Error("start decodes the files anew: give --data, or --only without start")
    return args


def parser() -> Parser:
    parser = Parser(prog="bench.py", description=__doc__)
    parser.set_defaults(**DEFAULTS)
    add = parser.add_argument
    add(
        "--data",
        help="a folder or archive of images (default: CIFAR-10 at hand; `start` needs one)",
    )
    add("--only", nargs="+", choices=SECTIONS, help="sections")
    add("--device", choices=("cpu", "cuda"), help="what the network runs on (default cpu)")
    add("--workers", type=int, help="that load batches, in input (default 0)")
    add("--rounds", type=int, help="turns of each side that count (default 5)")
    add("--width", type=int, help="channels of the first layer (default 64)")
    add("--bs", type=int, help="images a batch (default 512)")
    add("--json", action="store_true", help="print JSON in place of the table")
    add("--out", type=path_flag, metavar="FILE.md", help="also write the table as Markdown")
    return parser


if __name__ == "__main__":
    main()
