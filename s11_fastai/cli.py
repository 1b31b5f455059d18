"""The command line: flags, errors as one line, exit codes."""

import argparse
import errno
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from s11_fastai.errors import DivergedError, S11Error, Stopped, printable
from s11_fastai.runs.settings import DEFAULTS, DEMO, PRECISIONS, check, joined, read_config

_OTHER_PLACE = "mend the permissions or choose another place"
_REMEDIES = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.EACCES: _OTHER_PLACE,
    errno.EPERM: _OTHER_PLACE,
    errno.EROFS: _OTHER_PLACE,
}
CHECKPOINT_MINUTES = 2.0
ABOUT = """The whole assignment: images in; a trained network, its record and its pictures out.

Without flags: the full network on CIFAR-10 for 24 epochs. With --demo: handwritten digits,
offline, in about two minutes. A run that was stopped goes on with --out FOLDER --resume.
"""


@dataclass
class GoOn:
    """How to go on after an end that was not planned; empty while nothing has begun.

    None is for a process that is one of several and not the first, which speaks for all of them.
    """

    command: str | None = ""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line on stderr, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help lists the flags\n")


@contextmanager
def plain_errors(prog: str) -> Iterator[GoOn]:
    """Turn what a person can mend into one line on stderr and an exit code.

    S11Error and OSError give 2, DivergedError 3, a signal 128 and its number. An OSError and a
    signal also name the `command` to go on with, once the script has set it.
    """
    go_on = GoOn()
    try:
        yield go_on
    except DivergedError as error:
        _leave(prog, str(error) if go_on.command is not None else "", error.exit_code)
    except S11Error as error:
        _leave(prog, str(error), error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno, "look at the path and try again")
        then = f", then go on with: {go_on.command}" if go_on.command else ""
        _leave(prog, f"{where}{error.strerror or error}; {remedy}{then}", S11Error.exit_code)
    except Stopped as stop:
        what = f"go on with: {go_on.command}" if go_on.command else "there was nothing to keep yet"
        said = f"stopped; {what}" if go_on.command is not None else ""
        _leave(prog, said, stop.exit_code)


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


def _leave(prog: str, message: str, code: int) -> NoReturn:
    if message:
        with suppress(OSError):  # whoever read it may be gone
            print(f"{prog}: {printable(message)}", file=sys.stderr)
    sys.exit(code)
