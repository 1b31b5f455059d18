"""The whole assignment: images in; a trained network, its record and its pictures out."""

from __future__ import annotations

import argparse
import os
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from s11_fastai.errors import GoOn, plain_errors
from s11_fastai.flags import CHECKPOINT_MINUTES, parse, settings_of
from s11_fastai.signals import StopSignals

if TYPE_CHECKING:
    from s11_fastai.learner import S11Learner
    from s11_fastai.runs import RunFolder


def main(argv: list[str] | None = None) -> S11Learner | None:
    """Run the experiment that the flags describe and return its Learner."""
    with plain_errors("run.py") as go_on, StopSignals() as signals:
        return experiment(parse(argv), signals, go_on)


def experiment(args: argparse.Namespace, signals: StopSignals, go_on: GoOn) -> S11Learner | None:
    """Images, learner, a run folder; then bounds, fit and pictures, from wherever it stands."""
    # fastai's imports touch torch.jit, which warns of its end on every start.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    import torch

    from s11_fastai import S11ResNet, get_dls, load_images, s11_learner
    from s11_fastai.console import say, summary
    from s11_fastai.environment import environment, pick_device
    from s11_fastai.record import page_of_the_end
    from s11_fastai.records import read_results
    from s11_fastai.resume import begin_or_go_on
    from s11_fastai.run_path import check_free, default_path, holds_run, locked
    from s11_fastai.runs import RunFolder

    out = args.out or default_path(args.data)
    if not (args.resume and holds_run(out)):
        check_free(out)
    elif results := read_results(out):
        say(f"{out} is finished: {summary(results)}")
        return None
    else:
        go_on.command = command(out, args.checkpoint_minutes)
    device = pick_device(args.device)
    images = load_images(args.data)
    if args.holdout:
        images = images.hold_out(args.holdout)
    say(images.describe())

    torch.manual_seed(args.seed)
    dls = get_dls(images, args.bs, seed=args.seed, device=device)
    learn = s11_learner(dls, S11ResNet(dls.c, args.width), momentum=args.momentum, wd=args.wd)
    env = environment(device) | images.facts()
    steps = args.epochs * len(dls.train)
    say(f"{learn.describe()}, {steps:,} steps of {args.bs} images on {env['device_name']}")

    with locked(out):
        run = RunFolder(out, settings_of(args), env)
        for line in begin_or_go_on(run, learn.model, args.resume):
            say(line)
        go_on.command = command(out, args.checkpoint_minutes)
        with page_of_the_end(run):
            train(learn, run, args, signals)
            leave(run, learn)
    return learn


def train(
    learn: S11Learner, run: RunFolder, args: argparse.Namespace, signals: StopSignals
) -> None:
    """Find the bounds where they are not known, then fit one linear cycle, or the rest of it."""
    from s11_fastai.console import EpochTable, StepBar, TimeEstimate, say
    from s11_fastai.figures import draw_images
    from s11_fastai.lr_bounds import RANGE_TEST_STEPS, choose_lr_bounds
    from s11_fastai.record import KeepCheckpoints, KeepPage, RecordRun, StopWhenDiverged

    steps, evaluations = (args.epochs * len(dl) for dl in learn.dls.loaders)
    to_find = 0 if run.bounds or (args.lr_min and args.lr_max) else RANGE_TEST_STEPS
    left = 1 - run.steps_done / steps
    estimate = TimeEstimate(to_find + left * steps, left * evaluations, learn.dls.device)
    if not run.bounds:
        bar = StepBar("range test", RANGE_TEST_STEPS)
        with run.taken_back_on_error(), learn.added_cbs([bar, estimate]):
            run.write_bounds(choose_lr_bounds(learn, args.lr_min, args.lr_max))
    bounds = run.bounds
    draw_images(run.path, learn.dls.train.images, args.seed)
    say(f"lr from {bounds.lr_min:.3g} up to {bounds.lr_max:.3g} and back")

    ratio = bounds.lr_max / bounds.lr_min
    record = RecordRun(run)
    checkpoints = KeepCheckpoints(run, record, args.checkpoint_minutes, lambda: signals.asked)
    with signals.patient(), learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(
            args.epochs,
            bounds.lr_max,
            div=ratio,
            div_final=ratio,
            pct_start=args.peak_epoch / args.epochs,
            cbs=[
                StopWhenDiverged(run),
                record,
                EpochTable(run, learn.dls.train.images.evaluated_on),
                checkpoints,
                KeepPage(run),
                StepBar("training", steps),
                estimate,
            ],
        )


def leave(run: RunFolder, learn: S11Learner) -> None:
    """The final weights, the pictures and the page; results.json last, as the mark of the end."""
    from s11_fastai.console import say, summary
    from s11_fastai.figures import draw_predictions, draw_records
    from s11_fastai.learner import n_parameters
    from s11_fastai.records import read_records
    from s11_fastai.report import write_report

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
