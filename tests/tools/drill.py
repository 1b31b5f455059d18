"""Stop runs, resume them, and compare what they leave with an undisturbed run.

    python -m tests.tools.drill 100 --seed 0 --precision bf16    # kills at random moments
    python -m tests.tools.drill --every-change kill              # before each change on disk
    python -m tests.tools.drill --every-change ENOSPC            # each change fails
    python -m tests.tools.drill --every-change EIO --lasting     # and so do all after it

Real runs of `experiments/run.py` on the offline digits, as folders of PNG files, in processes that
are forked from this one once it has its imports done. With --every-change there are fewer images,
and three tiny pictures. Exits with 1 where a run was lost.
"""

import argparse
import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # the same in every process, and no threads before a fork
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import albumentations  # noqa: F401
import run
from helpers import compare
from matplotlib.figure import Figure
from PIL import Image
from writes import Strike, fails, kills, watched

# Here, so that no child has to: what the run imports as it goes.
from s11_fastai import environment, lr_bounds, metrics, sources
from s11_fastai.callbacks import checkpoint
from s11_fastai.learner import S11Learner
from s11_fastai.report import page as report
from s11_fastai.report import pictures as figures
from s11_fastai.runs import checkpoints, lock
from s11_fastai.runs import run as runs
from s11_fastai.sources import cache, digits, folder

FLAGS = [
    *("--width", "4", "--bs", "64", "--epochs", "3", "--peak-epoch", "1"),
    *("--lr-min", "0.001", "--device", "cpu", "--checkpoint-minutes", "0.0005"),
]
# For --every-change: the same changes in the same order whenever it runs, and no more than needed.
FEW_CHANGES = ["--epochs", "2", "--lr-min", "0.01", "--checkpoint-minutes", "9"]
FEW_PICTURES = ("samples", "loss", "misclassified")
FEW_IMAGES = 120
_WATCHING: list = []
SIGNALS = {signal.SIGKILL: 3, signal.SIGTERM: 1, signal.SIGINT: 1}
# Where a run is hit: while these work.
MOMENTS = {
    "decoding": (folder, "decode_all"),
    "cache": (cache, "write_cache"),
    "beginning": (runs.MainRun, "begin_or_resume"),
    "bounds": (lr_bounds, "bounds_of"),
    "step": (S11Learner, "one_batch"),
    "evaluation": (metrics.Accuracy, "accumulate"),
    "checkpoint": (checkpoints.Checkpoints, "write"),
    "records": (lock.RunFolder, "write"),
    "weights": (lock.RunFolder, "write_tensors"),
    "picture": (figures, "write_figure"),
    "page": (report, "write_page"),
    "finish": (runs.MainRun, "finish"),
    "resuming": (checkpoint, "load_state_dict"),
    "file": (os, "replace"),
    "any": (run, "main"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.tools.drill", description=__doc__)
    add = parser.add_argument
    add("kills", type=int, nargs="?", default=0, help="at random moments")
    add("--seed", type=int, default=0)
    add("--precision", default="auto", help="as run.py's")
    add("--every-change", metavar="HOW", help="kill, or the name of an errno")
    add("--lasting", action="store_true", help="what comes after a failed change fails as well")
    args = parser.parse_args()
    FLAGS.extend(["--precision", args.precision])
    with tempfile.TemporaryDirectory(prefix="s11-drill-") as name:
        if args.every_change:
            return at_every_change(Path(name), args.every_change, args.lasting)
        return at_random(Path(name), args.kills, random.Random(args.seed))


def at_random(top: Path, most: int, rng: random.Random) -> int:
    """Runs with up to five kills each, until there were as many as were asked for."""
    done, began, n_runs = Counter(), time.monotonic(), 0
    data = write_digits(top / "digits")
    calls = undisturbed(data, top)
    while done.total() < most:
        n_runs += 1
        killed = one_run(data, top, calls, rng, most - done.total())
        done.update(killed)
        if lost(top, f"after {killed}"):
            return 1
        print(f"{done.total()} of {most}", file=sys.stderr, flush=True)
    for moment, n in sorted(Counter(m for m, _ in done.elements()).items()):
        print(f"{moment:>12} {n:4}")
    by_signal = ", ".join(
        f"{n} by {signal.Signals(s).name}"
        for s, n in sorted(Counter(s for _, s in done.elements()).items())
    )
    seconds = time.monotonic() - began
    print(f"{done.total()} kills ({by_signal}) in {n_runs} runs, none lost, {seconds:.0f} s")
    return 0


def at_every_change(top: Path, how: str, lasting: bool) -> int:
    """A run for each change on disk that an undisturbed one makes, struck there and resumed."""
    data, began, ends = write_digits(top / "digits", FEW_IMAGES), time.monotonic(), Counter()
    FLAGS.extend(FEW_CHANGES)
    few = [picture for picture in figures.PICTURES if picture.name in FEW_PICTURES]
    figures.PICTURES = tuple(replace(picture, draw=lambda _: Figure((1, 1))) for picture in few)
    folder.process_mapper = partial(nullcontext, map)
    changes = len(undisturbed(data, top)["change"])
    for n in range(changes):
        strike = kills(n) if how == "kill" else fails(n, getattr(errno, how), lasting)
        ends[one_struck(data, top, strike)] += 1
        if lost(top, f"by change {n}"):
            return 1
        if not (n + 1) % 25:
            print(f"{n + 1} of {changes}", file=sys.stderr, flush=True)
    said = ", ".join(f"{n} ended with {status}" for status, n in sorted(ends.items()))
    what = f"{how}{' and all after it' * lasting} at each of {changes} changes"
    print(f"{what}: {said}; none lost, {time.monotonic() - began:.0f} s")
    return 0


def one_struck(data: Path, top: Path, strike: Strike) -> int:
    """The exit code of a run that was struck, once it has gone on to its end."""
    for left in ("run", "home"):
        shutil.rmtree(top / left, ignore_errors=True)
    status = attempt(data, top, "run", lambda: strikes(top, strike))
    log = (top / "log").read_text()
    assert status in (-signal.SIGKILL, 0, 2), (status, log)
    assert "Traceback" not in log, log
    assert status != 2 or log.splitlines()[-1].startswith("run.py: "), log
    resumed = attempt(data, top, "run", lambda: None)
    assert resumed == 0, (top / "log").read_text()
    return status


def lost(top: Path, when: str) -> bool:
    """Whether the run is another than the undisturbed one, or still has a checkpoint; says so."""
    wrong = compare(top / "reference", top / "run")
    wrong += ["checkpoint"] if (top / "run/checkpoint").exists() else []
    if wrong:
        print(f"LOST {when}: {wrong}\n{(top / 'log').read_text()[-3000:]}")
    return bool(wrong)


def write_digits(top: Path, most: int | None = None) -> Path:
    """The digits as PNG files, up to `most` of each part, so that there is something to decode."""
    images = digits.load_digits()
    for part, name in ((images.train, "train"), (images.valid, "test")):
        chosen = zip(part.images[:most], part.labels[:most], strict=True)
        for i, (pixels, label) in enumerate(chosen):
            path = top / name / images.classes[label]
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path / f"{i:04}.png")
    return top


def undisturbed(data: Path, top: Path) -> dict[str, list[float]]:
    """Make the run that the others are compared with; the seconds of each call at each moment."""
    spy = top / "spy"
    status = attempt(data, top, "reference", lambda: watch(spy, top))
    assert status == 0, (top / "log").read_text()
    calls: dict[str, list[float]] = {name: [] for name in (*MOMENTS, "change")}
    for line in spy.read_text().splitlines():
        name, seconds = line.split()
        calls[name].append(float(seconds))
    calls["resuming"] = calls["checkpoint"][:1]  # once a process, and about as long
    return calls


def one_run(data: Path, top: Path, calls: dict, rng: random.Random, most: int) -> Counter:
    """A run from its beginning to its end, killed up to five times; what killed it, and when."""
    shutil.rmtree(top / "run", ignore_errors=True)
    killed: Counter = Counter()
    for _ in range(rng.randint(1, min(5, most))):
        moment = rng.choice([name for name in calls if calls[name]])
        if moment in ("decoding", "cache"):
            shutil.rmtree(top / "home", ignore_errors=True)
        which = rng.choices(list(SIGNALS), SIGNALS.values())[0]
        nth = rng.randrange(len(calls[moment]))
        seconds = calls[moment][nth]
        plan = moment, nth, rng.uniform(0, seconds), which, rng.choice([None, None, 0.02])
        if moment == "change":  # between any two
            status = attempt(data, top, "run", lambda n=nth, s=which: strikes(top, kills(n, s)))
        else:
            status = attempt(data, top, "run", lambda plan=plan: hit(*plan))
        if status == 0:
            return killed  # it was faster
        check_end(status, which, plan[-1], (top / "log").read_text())
        killed[moment, which] += 1
    status = attempt(data, top, "run", lambda: None)
    assert status == 0, (status, (top / "log").read_text())
    again = attempt(data, top, "run", lambda: None)
    assert again == 0
    assert "is finished" in (top / "log").read_text()
    return killed


def attempt(data: Path, top: Path, name: str, prepare: Callable[[], None]) -> int:
    """The same command once, in a process of its own; its exit code, or minus its signal."""
    process = os.fork()
    if not process:
        code = 1
        try:
            log = os.open(top / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sources.fastai_folder = lambda folder: top / "home" / folder
            environment.git_revision_of_code = lambda: (
                None
            )  # somebody may work on the code meanwhile
            prepare()
            run.main([*FLAGS, "--data", str(data), "--out", str(top / name), "--resume"])
            code = 0
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def check_end(status: int, which: signal.Signals, again: float | None, log: str) -> None:
    """An end by a signal is that signal's; SIGKILL and a second one end at once."""
    ends = {-which} if which is signal.SIGKILL else {128 + which} | ({-which} if again else set())
    assert status in ends, f"{which.name} ended with {status}:\n{log}"
    assert "Traceback" not in log, log
    if status > 0:
        assert "go on with: " in log or "nothing to keep yet" in log, log


def strikes(top: Path, strike: Strike) -> None:
    """From now on, until this process ends, strike what it changes below `top`."""
    watching = watched(top, strike)
    watching.__enter__()
    _WATCHING.append(watching)  # it would end with its last reference


def watch(spy: Path, top: Path) -> None:
    """Note the seconds of each call at each moment, and each change on disk, in a file."""
    file = spy.open("a")
    strikes(top, lambda _n, _change: print("change", 0.0, file=file, flush=True))

    def around(name: str, function: Callable) -> Callable:
        @wraps(function)
        def timed(*args, **kwargs):
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                print(name, time.perf_counter() - began, file=file, flush=True)

        return timed

    for name, (place, attribute) in MOMENTS.items():
        setattr(place, attribute, around(name, getattr(place, attribute)))


def hit(moment: str, nth: int, delay: float, which: signal.Signals, again: float | None) -> None:
    """Send this process a signal, `delay` seconds into the nth call of a moment; or two."""
    place, attribute = MOMENTS[moment]
    function, count, own = getattr(place, attribute), iter(range(nth + 1)), os.getpid()

    def send() -> None:
        time.sleep(delay)
        os.kill(own, which)
        if again is not None:
            time.sleep(again)
            os.kill(own, which)

    @wraps(function)
    def struck(*args, **kwargs):
        if next(count, None) == nth:
            threading.Thread(target=send, daemon=True).start()
        return function(*args, **kwargs)

    setattr(place, attribute, struck)


if __name__ == "__main__":
    sys.exit(main())
