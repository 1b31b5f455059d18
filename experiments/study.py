"""Many runs from a table of settings: what each is worth, over several seeds.

    python experiments/study.py experiments/studies/recipe.ini --data path/to/cifar10.tgz

A table is an INI file. Each section is a variant and holds flags of run.py without their dashes;
[DEFAULT] holds what all variants share, and `seeds`. List run.py's defaults too: a row is known
by its flags alone. `data` in a table overrides --data. All variants get their first seed before any
gets its second. A run lies in --runs as run.py leaves it. As soon as it is over, it becomes a row
of --results/<table>.csv, without accuracies where it diverged. README.md there is made from the
rows of all tables; each variant is compared with the first one that has a row. The tables of
experiments/studies have their rows in results/study, others in the folder results of --runs. The
same command goes on where it was stopped. Runs that have a row already are not made again, and all
rows are of the same images: for other images give another --results.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from study_rows import COLUMNS, read_rows, write_rows
from study_table import Job, read_table

from s11_fastai.cli import Parser, command_line, path_flag, run_flags
from s11_fastai.errors import DivergedError, S11Error, Stopped
from s11_fastai.runs.settings import holds_run, read_config
from s11_fastai.signals import StopSignals
from s11_fastai.streams import say

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "experiments/studies"


def main(argv: list[str] | None = None) -> None:
    """Run what the table still lacks."""
    with command_line(__file__) as signals:
        args = parse(argv)
        jobs = read_table(args.table)
        check_flags(jobs)
        rows = args.results / f"{args.table.stem}.csv"
        signals.be_patient()
        try:
            run_all(jobs, rows, args, signals)
        except BaseException:  # which is what is to be said, whatever becomes of the page
            with suppress(S11Error, OSError):
                make_page(rows, args)
            raise
        make_page(rows, args)
        if signals.asked:
            raise Stopped(signals.asked, "the same command goes on")


def check_flags(jobs: list[Job]) -> None:
    """Raise S11Error, before any run begins, for a variant that run.py would refuse."""
    for job in jobs:
        try:
            run_flags([*job.flags, "--seed", str(job.seed)])
        except S11Error as error:
            raise S11Error(f"[{job.variant}] of the table: {error}") from error


def make_page(rows: Path, args: argparse.Namespace) -> None:
    """The page of all tables, once this one has a row."""
    if rows.exists():
        from study_page import write_page

        say(f"the page is {write_page(args.results, args.table.parent, STUDIES)}")


def run_all(jobs: list[Job], rows: Path, args: argparse.Namespace, signals: StopSignals) -> None:
    """Run the jobs that have no row yet, `args.parallel` at a time; a signal stops them all."""
    done = {(row["flags"], row["seed"]) for row in read_rows(rows)}
    waiting = [job for job in jobs if (job.key, str(job.seed)) not in done]
    check_folders(waiting, args)
    say(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are there")
    active: dict[subprocess.Popen, Job] = {}
    told: set[subprocess.Popen] = set()  # a second SIGTERM would end a run at once

    def stop() -> None:
        for process in active.keys() - told:
            told.add(process)
            process.send_signal(signal.SIGTERM)

    signals.tell(stop)  # a second signal ends this process before it could
    failed = []
    try:
        while (waiting or active) and not signals.asked:
            while waiting and len(active) < args.parallel and not signals.asked:
                job = waiting.pop(0)
                active[start(job, args)] = job
            for process in [p for p in active if p.poll() is not None]:
                job = active.pop(process)
                if process.returncode not in (0, DivergedError.exit_code):
                    failed.append(job)
                    say(f"{job.folder} ended with exit code {process.returncode}")
                    continue
                add_row(rows, job, args.runs / job.folder)
            time.sleep(0.2)
    finally:
        stop()
        for process in active:
            process.wait()
    if failed and not signals.asked:
        first = args.runs / f"{failed[0].folder}.log"
        runs = "a run" if len(failed) == 1 else f"{len(failed)} runs"
        raise S11Error(f"{runs} failed: look at {first}")


def check_folders(jobs: list[Job], args: argparse.Namespace) -> None:
    """Raise S11Error where a job's folder holds a run of other settings, or one that is finished
    and of other images: its row would be untrue.

    So it is where a variant keeps its name and gets other flags, or `args.data` is another.
    """
    mark_of = cache(fingerprint_of)  # the same images for most jobs
    for job in jobs:
        folder = args.runs / job.folder
        if not holds_run(folder):
            continue
        settings, _ = run_flags([*data_flags(args), *job.flags, "--seed", str(job.seed)])
        wrong = read_config(folder).differences(settings.as_dict())
        if not wrong and (folder / "results.json").exists():  # of one that goes on, run.py asks
            own = fingerprint_in(folder)
            if own and own != mark_of(settings.data, settings.resize):
                wrong = [f"its images are not those of {settings.data or 'CIFAR-10'}"]
        if wrong:
            raise S11Error(
                f"{folder} holds another run, {'; '.join(wrong)}: move it away, rename the "
                "variant, or give another --runs"
            )


def data_flags(args: argparse.Namespace) -> list[str]:
    """Flags for the images, before a job's own: the last one counts."""
    return ["--data", args.data] if args.data else []


def fingerprint_of(data: str | None, size: int) -> str:
    """That of the images as run.py loads them, whatever it holds out of them."""
    from s11_fastai.sources import load_all

    return load_all(data, size=size, needs_test=False).fingerprint


def fingerprint_in(folder: Path) -> str | None:
    """The fingerprint of a run's images; None where its version recorded none."""
    from s11_fastai.runs.records import read_records

    return read_records(folder).env.get("data_fingerprint")


def start(job: Job, args: argparse.Namespace) -> subprocess.Popen:
    """The job's run, begun or gone on with, on its share of the cores."""
    out = args.runs / job.folder
    out.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, ROOT / "experiments/run.py", *data_flags(args), *job.flags]
    words += ["--seed", job.seed, "--out", out, "--resume"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // args.parallel)
    with (args.runs / f"{job.folder}.log").open("a") as log:
        return subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            start_new_session=True,  # a Ctrl-C comes to this process, which tells them
        )


def add_row(rows: Path, job: Job, out: Path) -> None:
    """Add the row of a run that is over; raises S11Error where the rows are of other images."""
    row, there = row_of(job, out), read_rows(rows)
    others = {each["data"] for each in there} - {row["data"]}
    if others and "--data" not in job.flags:
        raise S11Error(
            f"{out} is of {row['data']}, and {rows} has rows of {' and '.join(sorted(others))}: "
            "give another --results"
        )
    write_rows(rows, [*there, row])
    say(f"{job.folder}: {row['final_accuracy'] or 'diverged'}")


def row_of(job: Job, out: Path) -> dict[str, object]:
    """What came of a finished run, or of one that diverged, which has no accuracies."""
    from s11_fastai.runs.records import read_records

    records = read_records(out)
    bounds, results = records.bounds, records.results or {}
    last = records.history[-1] if results else None
    values = {
        "variant": job.variant,
        "seed": job.seed,
        "flags": job.key,
        "data": records.data,
        "evaluated_on": records.evaluated_on,
        "images": records.env.get(f"{records.evaluated_on}_images"),
        "precision": records.env.get("precision"),
        "epochs": len(records.history),
        "lr_min": bounds.lr_min if bounds else None,
        "lr_max": bounds.lr_max if bounds else None,
        "final_accuracy": results.get("final_accuracy"),
        "best_accuracy": results.get("best_accuracy"),
        "train_accuracy": last.train_accuracy if last else None,
        "valid_loss": last.valid_loss if last else None,
        "git_revision": records.env.get("git_revision"),
    }
    return {name: values[name] for name in COLUMNS}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags; raises S11Error for those that make no study."""
    parser = Parser(prog="study.py", description=__doc__)
    add = parser.add_argument
    add("table", type=path_flag, help="an INI file of variants")
    add("--data", help="as run.py's")
    add("--parallel", type=int, default=1, help="runs at a time, which share the cores (default 1)")
    add(
        "--runs",
        type=path_flag,
        default=Path("runs/study"),
        help="folder of the runs (default runs/study)",
    )
    add("--results", type=path_flag, help="folder of the rows and of the page")
    args = parser.parse_args(argv)
    if args.parallel < 1:
        raise S11Error("--parallel must be 1 or more")
    if not args.table.is_file():
        raise S11Error(f"{args.table} does not exist: give a table of experiments/studies")
    if args.results is None:
        ours = args.table.resolve().parent == STUDIES.resolve()
        args.results = ROOT / "results/study" if ours else args.runs / "results"
    page = args.results / "README.md"
    if page.exists() and not page.read_bytes().startswith(b"# Study\n"):
        raise S11Error(f"{page} is no page of a study and is kept: give another --results")
    args.runs = args.runs / args.table.stem
    return args


if __name__ == "__main__":
    main()
