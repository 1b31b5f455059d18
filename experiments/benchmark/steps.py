"""Section "step": one training step of the network, with all that goes with it."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from torch import nn

from benchmark.bare import bare_step, in_a_thread, updating
from benchmark.harness import NETWORK, Stepwise, Stopwatch, project_fit, settings_of
from benchmark.peers import albumentations_batches, endless, fastai_dls
from benchmark.timing import PROJECT, Row, Table, round_robin, rows_of, seconds_of
from s11_fastai import S11ResNet
from s11_fastai.environment import pick_precision
from s11_fastai.errors import S11Error
from s11_fastai.sources import ImageSet

BEYOND = "of that, beyond the network's forward, backward and update"
REST = 1.0
_MOST_STEPS = {"cpu": 1, "cuda": 8}
_SAYS = (
    "One training step of the network of width {width} with {bs} images. The bare loop trains on "
    "one batch of noise, over and over; all others load and augment their images{workers}: those "
    "with workers find a full queue, which flatters them where a step is short. This "
    "project also records, shows and guards the run. The ratio is to {ours}, its default here; "
    "what it does beside the network's own work is timed by itself, since whole steps scatter by "
    "far more."
)


def measure_step(images: ImageSet, width: int, bs: int, rounds: int, device: torch.device) -> Table:
    """The time of each side, in turns, all in one process."""
    n = steps_a_turn(len(images.train.labels) // bs, rounds, device)
    ours = f"{PROJECT} in {precisions(device)[-1]}"
    with ExitStack() as stack:
        steps = dict(bare_steps(images, width, bs, device))
        for precision in precisions(device):
            fit, learn = stack.enter_context(
                project_fit(images, settings_of(width, bs, device, precision))
            )
            steps[f"{PROJECT} in {precision}"] = fit.step
        network = Stopwatch(learn, NETWORK)  # of the last, the default
        sides: dict[str, Callable[[], float]] = {
            name: partial(seconds_a_step, step, n, device) for name, step in steps.items()
        }
        total = sides[ours] = Kept(sides[ours])
        sides[BEYOND] = lambda: total.value - network.take() / n
        for name, step in peers(stack, images, width, bs, n * (rounds + 1), device).items():
            sides[name] = partial(seconds_then_rest, step, n, device)
        seconds = round_robin(sides, rounds)
    return table(seconds, width, bs, ours, device)


def precisions(device: torch.device) -> list[str]:
    """Those that are measured on a device; the last is the project's default there."""
    return list(dict.fromkeys(["fp32", pick_precision("auto", device)]))


def steps_a_turn(in_an_epoch: int, rounds: int, device: torch.device) -> int:
    """How many steps of each side are timed at once, so that no turn reaches an epoch's end."""
    n = min(_MOST_STEPS[device.type], in_an_epoch // (rounds + 1))
    if not n:
        raise S11Error("an epoch of these images has too few steps: give fewer --rounds or --bs")
    return n


def bare_steps(
    images: ImageSet, width: int, bs: int, device: torch.device
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The bare loop in each precision, and compiled in the default one where that can be done."""
    side, n_classes = images.train.images.shape[1], len(images.classes)
    each = partial(bare_step, n_classes, width, bs, device=device, side=side)
    for precision in precisions(device):
        yield f"bare loop in {precision}", in_a_thread(each(precision=precision))
    compiled = in_a_thread(each(precision=precision, compiled=True))
    try:
        compiled()
    except Exception as error:  # without a C compiler it can mean nearly anything
        print(f"skipped: torch.compile, which failed with {type(error).__name__}", file=sys.stderr)
    else:
        yield f"bare loop in {precision} with torch.compile", compiled


def peers(
    stack: ExitStack, images: ImageSet, width: int, bs: int, n: int, device: torch.device
) -> dict[str, Callable[[], None]]:
    """A step of what others document, each for `n` steps at least."""
    plain = in_a_thread(plain_step(images, width, bs, device))
    names = {"the same network in fastai, as documented, in fp32": False}
    if device.type == "cuda":
        names["the same in fastai with to_fp16()"] = True
    stock = {
        name: stack.enter_context(stock_fit(images, width, bs, n, device, half)).step
        for name, half in names.items()
    }
    return stock | {"a plain torch loop in fp32, as the reference": plain}


def plain_step(images: ImageSet, width: int, bs: int, device: torch.device) -> Callable[[], None]:
    """A loop as tutorials and the reference solution write it, workers augmenting."""
    model = S11ResNet(len(images.classes), width).to(device)
    update = updating(model, "fp32", device)
    batches = endless(albumentations_batches(images, bs, device, _workers(device)))
    return lambda: update(*next(batches))


@contextmanager
def stock_fit(
    images: ImageSet, width: int, bs: int, n: int, device: torch.device, half: bool = False
) -> Iterator[Stepwise]:
    """A Learner with fastai's own parts and defaults, its number of workers among them."""
    with tempfile.TemporaryDirectory() as scratch:
        # So many that the workers have work up to the last round: they are some batches ahead.
        dls = fastai_dls(images, bs * (n + 8), Path(scratch), bs, device)
        learn = Learner(
            dls,
            S11ResNet(dls.c, width),
            loss_func=nn.NLLLoss(),
            opt_func=partial(SGD, mom=0.9),
            metrics=accuracy,
            wd=5e-4,
        )
        if half:
            learn.to_fp16()
        with Stepwise(learn, partial(learn.fit_one_cycle, 24, 0.04)) as steps:
            yield steps


class Kept:
    """A measurement that remembers its last value."""

    def __init__(self, measure: Callable[[], float]) -> None:
        self.measure = measure

    def __call__(self) -> float:
        self.value = self.measure()
        return self.value


def seconds_a_step(step: Callable[[], object], n: int, device: torch.device) -> float:
    """The seconds of `n` steps in a row, divided by `n`."""

    def steps() -> None:
        for _ in range(n):
            step()

    return seconds_of(steps, device) / n


def seconds_then_rest(step: Callable[[], object], n: int, device: torch.device) -> float:
    """The same of a side with workers, after which they come to rest.

    They refill their queue, which would be at the cost of the side that is measured next. Such a
    side finds its queue full: a network whose step is shorter than loading flatters it.
    """
    seconds = seconds_a_step(step, n, device)
    time.sleep(REST)
    return seconds


def table(seconds: dict, width: int, bs: int, ours: str, device: torch.device) -> Table:
    """The rows; the rate of a part of a step would say nothing."""
    unit, factor = ("ms", 1000) if device.type == "cuda" else ("s", 1)
    rows = rows_of(seconds, [lambda s: factor * s, lambda s: bs / s], ours)
    return Table(
        section="step",
        units=(f"{unit} a step", "images/s"),
        rows=tuple(without_rate(row) if row.side == BEYOND else row for row in rows),
        says=_SAYS.format(
            width=width,
            bs=bs,
            ours=ours,
            workers=f", the plain loop with {_workers(device)} workers, fastai with its own number",
        ),
    )


def without_rate(row: Row) -> Row:
    return row._replace(values=(row.values[0], None))


def _workers(device: torch.device) -> int:
    return 2 if device.type == "cpu" else min(16, os.cpu_count() or 2)
