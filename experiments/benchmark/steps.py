"""Section "step": seconds of one training step of the network, with all that goes with it."""

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path

import run
import torch
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from torch import nn

from benchmark.bare import bare_step, in_a_thread, update
from benchmark.inputs import endless
from benchmark.network import Stopwatch
from benchmark.peers import albumentations_loader, fastai_dls
from benchmark.project import fit, flags_of_run
from benchmark.stepwise import Stepwise
from benchmark.timing import PROJECT, Row, round_robin, rows_of, seconds_of
from s11_fastai import S11ResNet
from s11_fastai.errors import S11Error
from s11_fastai.sources import ImageSet

LIMIT = "bare loop"
BEYOND = "of that, beyond the network's forward, backward and update"
REST = 1.0


def measure_step(images: ImageSet, width: int, bs: int, rounds: int) -> list[Row]:
    """Seconds a step of each side, in turns.

    A side with workers finds its queue full: a network so narrow that loading takes longer than
    its step flatters that side.
    """
    if (rounds + 1) * bs > len(images.train.labels):
        raise S11Error("an epoch of these images has too few steps: give fewer --rounds or --bs")
    bare, compiled = (
        in_a_thread(bare_step(len(images.classes), width, bs, compiled=c)) for c in (False, True)
    )
    plain = in_a_thread(plain_step(images, width, bs))
    # What a run says would stand in the middle of the table; its progress bar is on stderr.
    with redirect_stdout(io.StringIO()), ExitStack() as stack:
        ours, network = stack.enter_context(project_fit(images, width, bs))
        stock = stack.enter_context(stock_fit(images, width, bs, rounds))
        sides = {
            LIMIT: partial(seconds_of, bare),
            "the bare loop in torch.compile": partial(seconds_of, compiled),
            PROJECT: (total := Kept(partial(seconds_of, ours.step))),
            BEYOND: lambda: total.value - network.seconds,
            "the same network in fastai, as documented": partial(seconds_then_rest, stock.step),
            "a plain torch loop, as the reference": partial(seconds_then_rest, plain),
        }
        values = round_robin(sides, rounds)
    rows = rows_of("step", "s", values, LIMIT, lambda v: bs / v, "images/s")
    return [row._replace(other=None) if row.side == BEYOND else row for row in rows]


class Kept:
    """A measurement that remembers its last value."""

    def __init__(self, measure: Callable[[], float]) -> None:
        self.measure = measure

    def __call__(self) -> float:
        self.value = self.measure()
        return self.value


def plain_step(images: ImageSet, width: int, bs: int) -> Callable[[], None]:
    """A loop as tutorials and the reference solution write it, two workers augmenting."""
    model = S11ResNet(len(images.classes), width)
    opt = torch.optim.SGD(model.parameters(), lr=0.004, momentum=0.9, weight_decay=5e-4)
    batches = endless(albumentations_loader(images, bs, workers=2))
    return lambda: update(model, opt, *next(batches))


@contextmanager
def project_fit(images: ImageSet, width: int, bs: int) -> Iterator[tuple[Stepwise, Stopwatch]]:
    """run.py's own training in a temporary run folder, and what of a step is the network's."""
    args = flags_of_run(width, bs)
    learn = run.learner_of(images, args, torch.device("cpu"))
    network = Stopwatch(learn)
    with (
        tempfile.TemporaryDirectory() as scratch,
        Stepwise(learn, partial(fit, Path(scratch) / "run", learn, args)) as steps,
    ):
        yield steps, network


@contextmanager
def stock_fit(images: ImageSet, width: int, bs: int, rounds: int) -> Iterator[Stepwise]:
    """A Learner with fastai's own parts and defaults, its number of workers among them."""
    with tempfile.TemporaryDirectory() as scratch:
        # So many that the workers have work up to the last round: they are some batches ahead.
        dls = fastai_dls(images, bs * (rounds + 8), Path(scratch), bs)
        learn = Learner(
            dls,
            S11ResNet(dls.c, width),
            loss_func=nn.NLLLoss(),
            opt_func=partial(SGD, mom=0.9),
            metrics=accuracy,
            wd=5e-4,
        )
        with Stepwise(learn, partial(learn.fit_one_cycle, 24, 0.4)) as steps:
            yield steps


def seconds_then_rest(step: Callable[[], object]) -> float:
    """The seconds of a step, after which its workers come to rest.

    They refill their queue, which would be at the cost of the side that is measured next.
    """
    seconds = seconds_of(step)
    time.sleep(REST)
    return seconds
