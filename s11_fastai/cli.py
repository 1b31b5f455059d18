"""The command line: flags from the settings, errors as one line, exit codes.

Of the library, it alone knows the names of flags. Where an error of the library names a parameter,
`lr_min` in backticks, a person at the command line reads --lr-min.
"""

from __future__ import annotations

import argparse
import errno
import math
import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, NoReturn

from s11_fastai.errors import DivergedError, S11Error, Stopped, is_lack_of_memory
from s11_fastai.runs.settings import (
    RECIPES,
    Settings,
    holds_run,
    read_config,
    setting_kinds,
    updated,
)
from s11_fastai.signals import StopSignals
from s11_fastai.streams import lasting_streams, one_line

_OTHER_PLACE = "mend the permissions or choose another place"
_REMEDIES = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.EACCES: _OTHER_PLACE,
    errno.EPERM: _OTHER_PLACE,
    errno.EROFS: _OTHER_PLACE,
}
# Parameters of the library that flags of another name give.
_FLAGS = {"size": "--resize", "resume": "--resume", "out": "--out", "weights": "--weights"}
DEMO = {"data": "digits", "width": 16, "bs": 64}
CHECKPOINT_MINUTES = 2.0


class Options(NamedTuple):
    """What the flags of `run.py` say beside the settings."""

    out: Path | None
    resume: bool
    checkpoint_minutes: float


class Parser(argparse.ArgumentParser):
    """An argument parser that shows its description as it is written.

    It raises S11Error for what it cannot parse, without the usage text.
    """

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # a short form may be another flag's too in a later version
        )

    def add_device(self) -> None:
        """The flag that run.py has, too."""
        (words,) = (each.metadata["words"] for each in fields(Settings) if each.name == "device")
        self.add_argument("--device", help=words)

    def error(self, message: str) -> NoReturn:
        raise S11Error(f"{message}; --help lists the flags")


@contextmanager
def command_line(script: str, argv: list[str] | None = None) -> Iterator[StopSignals]:
    """Turn what a person can mend into one line on stderr and an exit code.

    `script` is the file that was called, `argv` its words.

    S11Error, OSError and a lack of memory give 2, DivergedError 3, a signal 128 and its number.
    Where a run can go on, the line names the command. Of a stop or a divergence, which all
    processes of a run share, the main one alone speaks.
    """
    # Threads that wait for each other sleep, so that two runs on one machine, or a run and its
    # user's other work, do not slow each other down. It must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # fastai's imports touch torch.jit, which warns of its end on every start.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    is_main = os.environ.get("RANK", "0") == "0"
    with lasting_streams():
        try:
            with StopSignals() as signals:
                yield signals
        except (S11Error, OSError, MemoryError, RuntimeError, Stopped) as error:
            message = message_of(error, script, argv)
            if message is None:
                raise
            speaks = is_main or not isinstance(error, Stopped | DivergedError)
            code = getattr(error, "exit_code", S11Error.exit_code)
            _exit(Path(script).name, message if speaks else "", code)


def message_of(error: BaseException, script: str, argv: list[str] | None) -> str | None:
    """One line on what ended the script, and what to do; None for a fault of the program."""
    # What run.py began, run.py goes on with; bench.py begins runs too, and takes them away.
    resumes = Path(script).name == "run.py"
    folder = getattr(error, "run_folder", None) if resumes else None
    go_on = _go_on(script, folder, argv) if folder else ""
    if isinstance(error, Stopped):
        return f"stopped; {go_on or error.advice}"
    if isinstance(error, S11Error):
        more = f"; the last good checkpoint is in {folder / 'checkpoint'}" if folder else ""
        return as_flags(f"{error}{more}")
    then = f", then {go_on}" if go_on else ""
    if what := lack_of_memory(error):
        smaller = "give a smaller --bs, --width or --resize, or " if resumes else ""
        return f"{what}: {smaller}close other programs{then}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno or 0, "look at the path and try again")
        return f"{where}{error.strerror or error}; {remedy}{then}"
    return None


def lack_of_memory(error: BaseException) -> str | None:
    """What was asked for, where the error says that there was no memory for it."""
    if not is_lack_of_memory(error):
        return None
    text = " ".join(str(error).split())
    asked = re.search(r"allocate ([\d.]+ \w+)", text)
    total = re.search(r"total capacity of ([\d.]+ \w+)", text)
    here = memory_of_computer()
    there = total[1] if total else here and f"{here} bytes"
    return (
        "out of memory"
        + (f" where {_readable(asked[1])} more were needed" if asked else "")
        + (f", of {_readable(there)} in all" if there else "")
    )


def memory_of_computer() -> int | None:
    """In bytes; None where the system does not say, as Windows."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _readable(size: str) -> str:
    """A number of bytes in GiB; what has another unit as it is."""
    number, unit = size.split()
    return f"{int(number) / 2**30:,.1f} GiB" if unit == "bytes" else size


def path_flag(word: str) -> Path:
    """The path that a flag names; a shell leaves ~ as it is in --out=~/run."""
    return Path(os.path.expanduser(word))


def as_flags(message: str) -> str:
    """The message with the names of parameters, which stand in backticks, as flags."""
    names = {name: flag(name) for name in setting_kinds()} | _FLAGS
    return re.sub(r"`(\w+)`", lambda found: names.get(found[1], found[0]), message)


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def words_of(values: Mapping[str, object]) -> list[str]:
    """Values of settings as flags."""
    return [word for name, value in values.items() for word in (flag(name), str(value))]


def command_of(settings: Settings, out: Path | str | None = None) -> str:
    """The command that makes a run of these settings, those that have their default left out.

    `out` is the folder that it is to be made in, by default one of its own.
    """
    defaults = Settings(epochs=settings.epochs).as_dict() | {"epochs": Settings.epochs}
    given = {k: v for k, v in settings.as_dict().items() if v not in (None, defaults[k])}
    words = words_of(given | ({"out": out} if out else {}))
    return _typed(["python", "experiments/run.py", *words])


def command_to_resume(folder: Path | str, script: str = "experiments/run.py") -> str:
    """The command that goes on with the run in a folder."""
    return _typed(["python", script, "--out", str(folder), "--resume"])


def _typed(words: Sequence[str]) -> str:
    """Words as they are typed at a prompt: Windows' own takes no quotes of a Unix shell."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def run_flags(argv: list[str] | None = None, about: str | None = None) -> tuple[Settings, Options]:
    """The flags of `run.py`; raises S11Error for what makes no run, before anything is loaded.

    With --resume, settings that are not given are those of the run in --out. `about` is what --help
    says first.
    """
    given = vars(_parser(about).parse_args(argv))
    options = Options(*(given.pop(name) for name in Options._fields))
    recipe = RECIPES.get(given.pop("recipe", ""), {})
    demo = DEMO if given.pop("demo", False) else {}
    given = {**demo, **recipe, **given}  # what is typed counts most
    if given.get("data") not in (None, "", "digits") and "://" not in given["data"]:
        given["data"] = os.path.abspath(os.path.expanduser(given["data"]))
    if options.resume and options.out is None:
        raise S11Error("--resume needs --out: name the folder of the run")
    if not 0 <= options.checkpoint_minutes < math.inf:
        raise S11Error("--checkpoint-minutes must be 0 or more")
    if options.resume and options.out and holds_run(options.out):
        return updated(read_config(options.out), given), options
    return Settings.from_dict(given), options


def _parser(about: str | None = None) -> Parser:
    parser = Parser(prog="run.py", description=about)
    add = parser.add_argument
    short = " ".join(words_of(DEMO))
    add("--demo", action="store_true", default=argparse.SUPPRESS, help=f"short for {short}")
    long = "; ".join(f"{name}: {' '.join(words_of(all_))}" for name, all_ in RECIPES.items())
    add(
        "--recipe",
        choices=RECIPES,
        default=argparse.SUPPRESS,
        help=f"settings that belong together ({long})",
    )
    kinds = setting_kinds()
    for each in fields(Settings):
        default = "" if each.default is None else f" (default {each.default})"
        add(
            flag(each.name),
            type=kinds[each.name],
            default=argparse.SUPPRESS,
            metavar=each.name.split("_")[-1].upper(),
            help=each.metadata["words"] + default,
        )
    add(
        "--out",
        type=path_flag,
        default=None,
        help="the run's folder (default runs/<date>-<time>-<data>)",
    )
    add("--resume", action="store_true", help="begin the run in --out, or go on with it")
    add(
        "--checkpoint-minutes",
        type=float,
        default=CHECKPOINT_MINUTES,
        metavar="M",
        help="the longest time of training between two checkpoints "
        f"(default {CHECKPOINT_MINUTES:g})",
    )
    return parser


def _go_on(script: str, folder: Path, argv: list[str] | None) -> str:
    """How to go on with the run in a folder."""
    minutes = _parser().parse_args(argv).checkpoint_minutes
    more = "" if minutes == CHECKPOINT_MINUTES else f" --checkpoint-minutes {minutes:g}"
    return f"go on with: {command_to_resume(folder, _shown(script))}{more}"


def _shown(script: str) -> str:
    """How the script is called from here."""
    try:
        return os.path.relpath(script)
    except ValueError:  # on Windows, from another drive
        return script


def _exit(prog: str, message: str, code: int) -> NoReturn:
    if message:
        print(f"{prog}: {one_line(message)}", file=sys.stderr)
    if sys.flags.interactive:  # Python goes on to a prompt, and would show where this is
        sys.excepthook = _show_errors_alone
    sys.exit(code)


def _show_errors_alone(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if kind is not SystemExit:
        sys.__excepthook__(kind, error, traceback)
