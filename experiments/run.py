"""The whole assignment: images in; a trained network, its record and its pictures out."""

from __future__ import annotations

import argparse
import os
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from s11_fastai.callbacks.stopping import StopSignals
from s11_fastai.cli import CHECKPOINT_MINUTES, GoOn, parse, plain_errors, settings_of

if TYPE_CHECKING:
    import torch

    from s11_fastai.learner import S11Learner
    from s11_fastai.runs.run import RunFolder
    from s11_fastai.sources import ImageSet


def main(argv: list[str] | None = None) -> S11Learner | None:
    """Run the experiment that the flags describe and return its Learner."""
    # Threads that wait for each other sleep, so that two runs on one machine, or a run and its
    # user's other work, do not slow each other down. It must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with plain_errors("run.py") as go_on, StopSignals() as signals:
        return experiment(parse(argv), signals, go_on)


def experiment(args: argparse.Namespace, signals: StopSignals, go_on: GoOn) -> S11Learner | None:
    """Images, learner, a run folder; then bounds, fit and pictures, from wherever it stands."""
    # fastai's imports touch torch.jit, which warns of its end on every start.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    from s11_fastai.callbacks.distributed import check_shares, join_processes
    from s11_fastai.callbacks.progress import say, summary
    from s11_fastai.callbacks.recording import page_of_the_end
    from s11_fastai.environment import environment
    from s11_fastai.runs.lock import check_free, default_path, holds_run, locked
    from s11_fastai.runs.records import read_results
    from s11_fastai.runs.run import RunFolder, begin_or_go_on
    from s11_fastai.training import assist, train

    processes = join_processes(args.device)
    if not processes.is_first:
        go_on.command = None
        return assist(
            lambda: learner_of(images_of(args), args, processes.device), args, signals, processes
        )
    with processes.or_tell_none():
        out = args.out or default_path(args.data)
        if not (args.resume and holds_run(out)):
            check_free(out)
        elif results := read_results(out):
            say(f"{out} is finished: {summary(results)}")
            return None
        else:
            go_on.command = command(out, args.checkpoint_minutes)
        images = images_of(args)
        say(images.describe())
        check_shares(len(images.train.labels), args.bs, processes.count)
        learn = learner_of(images, args, processes.device)
        env = environment(processes.device, learn.precision, processes.count) | images.facts()
        steps = args.epochs * len(learn.dls.train)
        say(
            f"{learn.describe()}, {steps:,} steps of {args.bs} images "
            f"in {learn.precision} on {env['device_name']}"
        )

        with locked(out):
            run = RunFolder(out, settings_of(args), env)
            for line in begin_or_go_on(run, learn.model, args.resume):
                say(line)
            go_on.command = command(out, args.checkpoint_minutes)
            with page_of_the_end(run):
                train(learn, run, args, signals, processes)
                leave(run, learn)
    return learn


def images_of(args: argparse.Namespace) -> ImageSet:
    """The images that the flags name."""
    from s11_fastai import load_images

    images = load_images(args.data)
    return images.hold_out(args.holdout) if args.holdout else images


def learner_of(images: ImageSet, args: argparse.Namespace, device: torch.device) -> S11Learner:
    """The Learner that the flags describe, with fresh weights."""
    import torch

    from s11_fastai import S11ResNet, get_dls, s11_learner

    torch.manual_seed(args.seed)
    dls = get_dls(images, args.bs, seed=args.seed, device=device)
    return s11_learner(
        dls,
        S11ResNet(dls.c, args.width, args.logit_scale),
        momentum=args.momentum,
        wd=args.wd,
        label_smoothing=args.label_smoothing,
        precision=args.precision,
    )


def leave(run: RunFolder, learn: S11Learner) -> None:
    """The final weights, the pictures and the page; results.json last, as the mark of the end."""
    from s11_fastai.callbacks.progress import say, summary
    from s11_fastai.learner import n_parameters
    from s11_fastai.report.page import write_report
    from s11_fastai.report.pictures import draw_predictions, draw_records
    from s11_fastai.runs.records import read_records

    run.write_weights("model.safetensors", learn.model.state_dict())
    draw_records(read_records(run.path))
    draw_predictions(run.path, learn, run.config["seed"])
    results = run.results(n_parameters(learn.model), learn.dls.train.images.evaluated_on)
    page = write_report(run.path, results=results)
    run.finish(results)
    say(f"{summary(results)}\neverything is in {run.path}; the page is {page}")


def command(out: Path, minutes: float) -> str:
    """What a person types to go on with the run."""
    words = ["python", os.path.relpath(__file__), "--out", str(out), "--resume"]
    if minutes != CHECKPOINT_MINUTES:
        words += ["--checkpoint-minutes", f"{minutes:g}"]
    return shlex.join(words)


if __name__ == "__main__":
    learn = main()
