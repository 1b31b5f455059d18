"""The project as run.py puts it together, up to where a part of it is measured."""

import argparse
from pathlib import Path

import run

from s11_fastai.callbacks.distributed import Processes
from s11_fastai.callbacks.stopping import StopSignals
from s11_fastai.cli import settings_of
from s11_fastai.environment import environment
from s11_fastai.learner import S11Learner
from s11_fastai.runs.lock import locked
from s11_fastai.runs.run import RunFolder, begin_or_go_on
from s11_fastai.training import train


def flags_of_run(width: int, bs: int) -> argparse.Namespace:
    """run.py's flags; the bounds are given, so that there is no range test."""
    words = ["--width", str(width), "--bs", str(bs), "--device", "cpu"]
    return run.parse([*words, "--lr-min", "0.004", "--lr-max", "0.4"])


def begun(out: Path, learn: S11Learner, args: argparse.Namespace) -> RunFolder:
    """A run folder in which the run has begun; it must be `locked`."""
    env = environment(learn.dls.device, learn.precision) | learn.dls.train.images.facts()
    folder = RunFolder(out, settings_of(args), env)
    begin_or_go_on(folder, learn.model, args.resume)
    return folder


def fit(out: Path, learn: S11Learner, args: argparse.Namespace) -> None:
    """Train in a new run folder, with all that a run does beside it."""
    with locked(out):
        folder, alone = begun(out, learn, args), Processes(learn.dls.device)
        train(learn, folder, args, StopSignals(), alone)
