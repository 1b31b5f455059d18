"""How fast the project is, beside what bounds it and beside its peers, on the CPU.

input       augmented batches without a network, on one core (with --workers on all of them)
step        one training step of the network; and the most memory that two of them take
start       whole processes: decoding all files, the first batch, run.py --help
evaluation  predicting, drawing and writing the page when training is over

The sides of a section take turns: in each round each of them is measured once, after a round
that is not counted, so that whatever else the machine does falls on all alike. What is shown is
the median of a side's values, and the median of its ratios, within the rounds, to the limit and
to this project. Evaluation and memory are measured once.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from s11_fastai.cli import Parser, command_line
from s11_fastai.errors import S11Error, printable

if TYPE_CHECKING:
    from benchmark.timing import Row

    from s11_fastai.sources import ImageSet

SECTIONS = ["input", "step", "start", "evaluation"]


def main(argv: list[str] | None = None) -> None:
    """Measure what the flags name and print it."""
    with command_line(__file__):
        bench(parse(argv))


def bench(args: argparse.Namespace) -> None:
    """Images; the rows of each section; then the table, and the page where one is asked for."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    if args.peak:
        from benchmark.memory import two_steps

        two_steps(args.peak, args.data, args.width, args.bs)
        return
    from benchmark.tables import as_json, as_markdown, as_text, facts_of

    from s11_fastai import load_images
    from s11_fastai.storage import write_atomically

    images = load_images(args.data)
    rows = []
    for section in args.only:
        print(f"measuring: {section}", file=sys.stderr)
        rows += measure(section, images, args)
    facts = facts_of(args, parser().parse_args([]), images.name)
    print(printable(as_json(rows, facts) if args.json else as_text(rows)))
    if args.out:
        write_atomically(args.out, as_markdown(rows, facts))


def measure(section: str, images: ImageSet, args: argparse.Namespace) -> list[Row]:
    """The rows of one section."""
    if section == "input":
        from benchmark.inputs import measure_input

        return measure_input(images, args.bs, args.workers, args.rounds)
    if section == "step":
        from benchmark.memory import measure_memory
        from benchmark.steps import measure_step

        rows = measure_step(images, args.width, args.bs, args.rounds)
        return rows + measure_memory(images, args.data, args.width, args.bs)
    if section == "start":
        from benchmark.starts import measure_start

        return measure_start(args.data, args.bs, args.rounds)
    from benchmark.evaluation import measure_evaluation

    return measure_evaluation(images, args.width, args.bs)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags; raises S11Error for those that make no measurement."""
    args = parser().parse_args(argv)
    for name, least in {"workers": 0, "rounds": 1, "width": 1, "bs": 1}.items():
        if getattr(args, name) < least:
            raise S11Error(f"--{name} must be {least} or more")
    if args.out and args.out.suffix != ".md":
        raise S11Error(f"--out {args.out} must end in .md")
    if "start" in args.only and not (args.data or args.peak):
        raise S11Error("start decodes the files anew: give --data, or --only without start")
    return args


def parser() -> Parser:
    parser = Parser(
        prog="bench.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", help="a folder or archive of 32x32 images (default: CIFAR-10)")
    add("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections (default all)")
    add("--workers", type=int, default=0, help="that load batches, in input (default 0)")
    add("--rounds", type=int, default=5, help="turns of each side that count (default 5)")
    add("--width", type=int, default=64, help="channels of the first layer (default 64)")
    add("--bs", type=int, default=512, help="images a batch (default 512)")
    add("--json", action="store_true", help="print JSON in place of the table")
    add("--out", type=Path, metavar="FILE.md", help="also write the table as Markdown")
    add("--peak", choices=("bare", "run"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
