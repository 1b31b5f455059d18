"""The whole assignment: images in; a trained network, its record and its pictures out.

Without flags: the full network on CIFAR-10 for 24 epochs. With --demo: handwritten digits,
offline, in about two minutes.
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from s11_fastai.errors import Parser, S11Error, plain_errors

if TYPE_CHECKING:
    from s11_fastai.learner import S11Learner

FULL = {"data": None, "width": 64, "bs": 512}
DEMO = {"data": "digits", "width": 16, "bs": 64}


def main(argv: list[str] | None = None) -> S11Learner:
    """Run the experiment that the flags describe and return its Learner."""
    with plain_errors("run.py"):
        return experiment(parse(argv))


def experiment(args: argparse.Namespace) -> S11Learner:
    """Images, learner, bounds, fit, record, pictures: the story from top to bottom."""
    # fastai's imports touch torch.jit, which warns of its end on every start.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    import torch

    from s11_fastai import S11ResNet, get_dls, load_images, s11_learner
    from s11_fastai.console import EpochTable, StepBar, TimeEstimate, say
    from s11_fastai.environment import environment, pick_device
    from s11_fastai.figures import draw_figures
    from s11_fastai.lr_bounds import RANGE_TEST_STEPS, choose_lr_bounds
    from s11_fastai.record import RecordRun
    from s11_fastai.report import write_report
    from s11_fastai.runs import RunFolder, check_free, default_path

    device = pick_device(args.device)
    out = args.out or default_path(args.data)
    check_free(out)
    images = load_images(args.data)
    if args.holdout:
        images = images.hold_out(args.holdout)
    say(images.describe())

    torch.manual_seed(args.seed)
    dls = get_dls(images, args.bs, seed=args.seed, device=device)
    learn = s11_learner(dls, S11ResNet(dls.c, args.width), momentum=args.momentum, wd=args.wd)
    steps = args.epochs * len(dls.train)
    env = environment(device) | {"data_fingerprint": images.fingerprint}
    say(f"{learn.describe()}, {steps:,} steps of {args.bs} images on {env['device_name']}")

    to_find = 0 if args.lr_min and args.lr_max else RANGE_TEST_STEPS
    estimate = TimeEstimate(steps + to_find, args.epochs * len(dls.valid), device)
    with learn.added_cbs([StepBar("range test", RANGE_TEST_STEPS), estimate]):
        bounds = choose_lr_bounds(learn, args.lr_min, args.lr_max)
    say(f"lr from {bounds.lr_min:.3g} up to {bounds.lr_max:.3g} and back")

    run = RunFolder.create(out, settings(args), env)
    run.write_bounds(bounds)
    ratio = bounds.lr_max / bounds.lr_min
    record, table = RecordRun(run), EpochTable(run, images.evaluated_on)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(
            args.epochs,
            bounds.lr_max,
            div=ratio,
            div_final=ratio,
            pct_start=args.peak_epoch / args.epochs,
            cbs=[record, table, StepBar("training", steps), estimate],
        )
    run.finish(learn.model, bounds, images, args.seed)
    draw_figures(run, images, bounds, args.seed)
    page = write_report(run.path)
    say(f"{run.summary(images.evaluated_on)}\neverything is in {run.path}; the page is {page}")
    return learn


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags; raises S11Error for values that make no run, before anything is loaded."""
    parser = Parser(
        prog="run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--demo", action="store_true", help="short for --data digits --width 16 --bs 64")
    add("--data", help="a folder or archive of 32x32 images, or 'digits' (default: CIFAR-10)")
    add("--epochs", type=int, default=24, help="passes over the training images (default 24)")
    add("--bs", type=int, help="images a batch (default 512)")
    add("--width", type=int, help="channels of the first layer (default 64: 6,574,090 parameters)")
    add("--seed", type=int, default=0, help="of weights, order and augmentation (default 0)")
    add("--lr-min", type=float, help="lr at both ends of the cycle (default: from the range test)")
    add("--lr-max", type=float, help="lr at the peak (default: from the range test)")
    add("--peak-epoch", type=int, default=5, help="the peak comes after this epoch (default 5)")
    add("--momentum", type=float, default=0.9, help="Nesterov momentum of SGD (default 0.9)")
    add("--wd", type=float, default=5e-4, help="weight decay of every parameter (default 0.0005)")
    add("--holdout", type=int, default=0, metavar="N", help="evaluate N held-out training images")
    add("--device", help="cpu, cuda or mps (default: a GPU where there is one)")
    add("--out", type=Path, help="a new folder for the run (default runs/<date>-<time>-<data>)")
    args = parser.parse_args(argv)
    for name, value in (DEMO if args.demo else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Raise S11Error for values that make no run."""
    at_least = {"bs": 1, "width": 1, "seed": 0, "holdout": 0, "peak_epoch": 1}
    for name, least in at_least.items():
        if getattr(args, name) < least:
            raise S11Error(f"{flag(name)} must be {least} or more")
    for name in ("lr_min", "lr_max"):
        lr = getattr(args, name)
        if lr is not None and not 0 < lr < math.inf:
            raise S11Error(f"{flag(name)} must be a number above 0")
    if args.lr_min and args.lr_max and args.lr_min >= args.lr_max:
        raise S11Error(f"--lr-min {args.lr_min:g} must be below --lr-max {args.lr_max:g}")
    if args.epochs <= args.peak_epoch:
        raise S11Error(
            f"--epochs {args.epochs} must be above --peak-epoch {args.peak_epoch}: "
            "give more epochs or an earlier peak"
        )
    if args.seed >= 2**63:
        raise S11Error("--seed must be below 2**63")
    if not 0 < args.momentum < 1:
        raise S11Error("--momentum must lie between 0 and 1")
    if not 0 <= args.wd < math.inf:
        raise S11Error("--wd must be 0 or more")


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def settings(args: argparse.Namespace) -> dict:
    """The flags as `config.json` keeps them."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k != "demo"}


if __name__ == "__main__":
    learn = main()
