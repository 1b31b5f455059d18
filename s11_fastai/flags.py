"""The flags of `run.py`."""

import argparse
import math
from pathlib import Path

from s11_fastai.errors import Parser, S11Error
from s11_fastai.settings import DEFAULTS, DEMO, PRECISIONS, check, joined, read_config

CHECKPOINT_MINUTES = 2.0
ABOUT = """The whole assignment: images in; a trained network, its record and its pictures out.

Without flags: the full network on CIFAR-10 for 24 epochs. With --demo: handwritten digits,
offline, in about two minutes. A run that was stopped goes on with --out FOLDER --resume.
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags, complete; raises S11Error for what makes no run, before anything is loaded.

    With --resume, settings that are not given are those of the run in --out.
    """
    given = vars(_parser().parse_args(argv))
    control = {name: given.pop(name) for name in ("out", "resume", "checkpoint_minutes")}
    if given.pop("demo", False):
        given = DEMO | given
    if control["resume"] and control["out"] is None:
        raise S11Error("--resume needs --out: name the folder of the run")
    if not 0 <= control["checkpoint_minutes"] < math.inf:
        raise S11Error("--checkpoint-minutes must be 0 or more")
    settings = DEFAULTS | given
    if control["resume"] and (control["out"] / "config.json").exists():
        settings = joined(read_config(control["out"]), given)
    check(settings)
    return argparse.Namespace(**settings, **control)


def settings_of(args: argparse.Namespace) -> dict:
    """The settings among the flags: what `config.json` keeps."""
    return {name: getattr(args, name) for name in DEFAULTS}


def _parser() -> Parser:
    parser = Parser(
        prog="run.py",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--demo", action="store_true", help="short for --data digits --width 16 --bs 64")
    add("--data", help="a folder or archive of 32x32 images, or 'digits' (default: CIFAR-10)")
    add("--epochs", type=int, help="passes over the training images (default 24)")
    add("--bs", type=int, help="images a batch (default 512)")
    add("--width", type=int, help="channels of the first layer (default 64: 6,574,090 parameters)")
    add("--seed", type=int, help="of weights, order and augmentation (default 0)")
    add("--lr-min", type=float, help="lr at both ends of the cycle (default: from the range test)")
    add("--lr-max", type=float, help="lr at the peak (default: from the range test)")
    add("--peak-epoch", type=int, help="the peak comes after this epoch (default 5)")
    add("--momentum", type=float, help="Nesterov momentum of SGD (default 0.9)")
    add("--wd", type=float, help="weight decay of every parameter (default 0.0005)")
    add("--label-smoothing", type=float, help="part of a label given to all classes (default 0)")
    add("--logit-scale", type=float, help="constant factor on the logits (default 1)")
    add("--holdout", type=int, metavar="N", help="evaluate N held-out training images")
    add("--device", help="cpu, cuda or mps (default: a GPU where there is one)")
    add("--precision", choices=PRECISIONS, help="of training (default auto: what it is fast in)")
    add("--out", type=Path, default=None, help="the run's folder (default runs/<date>-<data>)")
    add(
        "--resume",
        action="store_true",
        default=False,
        help="begin the run in --out, go on with it, or find it finished",
    )
    add(
        "--checkpoint-minutes",
        type=float,
        default=CHECKPOINT_MINUTES,
        metavar="M",
        help="the longest time between two checkpoints (default 2)",
    )
    return parser
