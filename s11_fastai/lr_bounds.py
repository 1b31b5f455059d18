"""LRMIN and LRMAX from fastai's range test."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from fastai.callback.progress import CSVLogger
from fastai.callback.schedule import LRFinder, ParamScheduler
from fastai.learner import Learner
from fastcore.foundation import L
from torch import Tensor

from s11_fastai.errors import S11Error
from s11_fastai.generators import (
    generator_state,
    load_generator_state,
    load_loader_generator_state,
    loader_generator_state,
)
from s11_fastai.metrics import loss_module

RANGE_TEST_STEPS = 100
PEAK_ABOVE_HALF = 8  # LRMAX, in times the lr at which the loss has made half of its fall
PEAK_ABOVE_END = 100  # LRMAX, in times LRMIN
_FEWEST_STEPS = 20
_SMALLEST_FALL = 0.02
_WINDOW = 5  # steps whose mean loss is taken


@dataclass(frozen=True)
class LRBounds:
    """Where the cycle begins and ends (`lr_min`), its peak (`lr_max`), and the range test's curve.

    `lrs` and `losses`, in nats, have one value for each step of the test while the loss was finite;
    a loss is the mean of five steps. They are empty where the bounds were given by hand.
    """

    lr_min: float
    lr_max: float
    lrs: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()

    def __repr__(self) -> str:
        found = f"a range test of {len(self.lrs)} steps" if self.lrs else "given by hand"
        return f"LRBounds(lr_min={self.lr_min:.4g}, lr_max={self.lr_max:.4g}, {found})"

    @property
    def ratio(self) -> float:
        """How many times the lower bound the upper one is: `div` and `div_final` of one cycle."""
        return self.lr_max / self.lr_min


def find_lr_bounds(
    learn: Learner,
    lr_min: float | None = None,
    lr_max: float | None = None,
    num_it: int = RANGE_TEST_STEPS,
) -> LRBounds:
    """Run fastai's range test for `num_it` steps, choose the bounds by `bounds_of`, leave no trace.

    A bound that is given is kept. Where `lr_max` is, no test is run, and `lr_min` is a hundredth of
    it unless given too. The network's `state_dict`, optimiser, recorder, loaders and every random
    number generator are as before when it returns, and when it fails; nothing is written to disk.
    Raises S11Error as `bounds_of` does, for a given bound of 0 or less, and where `lr_min` is not
    below `lr_max`.
    """
    for name, given in (("lr_min", lr_min), ("lr_max", lr_max)):
        if given is not None and not 0 < given < math.inf:
            raise S11Error(f"`{name}` must be a finite number above 0, not {given}")
    if lr_max is not None:
        low = lr_max / PEAK_ABOVE_END if lr_min is None else lr_min
        if low >= lr_max:
            raise S11Error(f"`lr_min` {low:g} must be below `lr_max` {lr_max:g}")
        return LRBounds(low, lr_max)
    lrs, losses = _range_test(learn, num_it)
    low, high = bounds_of(lrs, losses)
    low = low if lr_min is None else lr_min
    if low >= high:
        raise S11Error(
            f"`lr_min` {low:.3g} is not below the `lr_max` {high:.3g} that the range test found: "
            "give a lower `lr_min`, or `lr_max` too"
        )
    return LRBounds(low, high, lrs[: len(losses)], losses)


def _range_test(learn: Learner, num_it: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The learning rate of each step, and the smoothed loss of each while it was finite."""
    if not len(learn.dls.train):
        raise S11Error(
            "dls.train has no batch, as there are fewer images than `bs`: choose a smaller `bs`, "
            "or drop_last=False"
        )
    epochs = num_it // len(learn.dls.train) + 1
    test = _RangeTest(num_it=num_it)
    with _untouched(learn), learn.no_bar(), learn.no_logging():
        learn.remove_cbs(learn._grab_cbs(CSVLogger))  # its file is of fits
        learn.fit(epochs, cbs=test)
        return tuple(map(float, learn.recorder.lrs)), smoothed(test.losses)


class _RangeTest(LRFinder):
    """What `learn.lr_find` adds to a fit, without its files: `_untouched` keeps the weights.

    It would write them below `learn.path`, read them back by unpickling, and leave them there where
    the process is killed; with several processes it would wait for the others.
    """

    name = "lr_finder"  # by which other callbacks know that this is no training

    def before_fit(self) -> None:
        ParamScheduler.before_fit(self)
        self.best_loss = float("inf")
        self.losses: list[Tensor] = []

    def after_batch(self) -> None:
        self.losses.append(self.learn.loss.detach())
        super().after_batch()

    def after_fit(self) -> None:
        self.learn.opt.zero_grad()


@contextmanager
def _untouched(learn: Learner) -> Iterator[None]:
    """Whatever happens to the Learner inside, put everything back that training depends on."""
    loaders = list(learn.dls.loaders)
    learning = [part for part in (learn.model, loss_module(learn)) if part is not None]
    weights = [(part, copy.deepcopy(part.state_dict())) for part in learning]
    modes = [(module, module.training) for part in learning for module in part.modules()]
    parameters = [
        (p, None if p.grad is None else p.grad.clone(), p.requires_grad)
        for part in learning
        for p in part.parameters()
    ]
    optimiser = learn.opt and copy.deepcopy(learn.opt.state_dict())
    cbs, means = list(learn.cbs), (learn.recorder.loss, learn.recorder.smooth_loss)
    things = (learn, *cbs, *means, *(loader for loader in loaders if hasattr(loader, "__dict__")))
    kept = [(thing, dict(vars(thing))) for thing in things]
    of_loaders, of_all = loader_generator_state(loaders), generator_state()
    try:
        yield
    finally:
        for thing, attributes in kept:
            vars(thing).clear()
            vars(thing).update(attributes)
        learn.cbs = L(cbs)
        for part, state in weights:
            part.load_state_dict(state)
        for module, training in modes:
            module.training = training
        for parameter, gradient, trains in parameters:
            parameter.grad = gradient
            parameter.requires_grad_(trains)
        if optimiser:
            learn.opt.load_state_dict(optimiser)
        load_loader_generator_state(loaders, of_loaders)
        load_generator_state(of_all)


def bounds_of(lrs: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    """LRMIN and LRMAX from the curve of a range test: lrs that grow, `smoothed` losses in nats.

    There may be fewer losses than lrs: from there on the loss was not finite.

    LRMAX is eight times the lr at which the loss has made half of its fall (`half_of_the_fall`),
    and LRMIN a hundredth of LRMAX. Where the loss rises again says little: with scaled logits it
    can stay low up to rates that ruin a longer training, without them it rises below the best peak,
    as a cycle reaches its peak after epochs of warm-up and the test does not.
    Source: the range test of Smith, arXiv:1506.01186, section 3.3. The factor eight is measured:
    results/study/README.md has what other peaks are worth. The hundredth is a choice.

    Raises S11Error where the curve is too short, is not finite from the start, or never falls.
    """
    curve = np.asarray(losses, dtype=float)
    if len(curve) < _FEWEST_STEPS:
        why, remedy = (
            ("the loss was not finite any more", "look at the data")
            if len(curve) < len(lrs)
            else ("the test was over", "give a larger `num_it`")
        )
        raise S11Error(
            f"the range test gives no bounds: after {len(curve)} steps {why}, and {_FEWEST_STEPS} "
            f"are needed; {remedy}, or give `lr_max`"
        )
    flat, lowest, start = _n_flat_steps(curve), int(curve.argmin()), _start(curve)
    if lowest < flat or start - curve[lowest] < _SMALLEST_FALL * abs(start):
        raise S11Error(
            f"the range test gives no bounds: the loss never fell below the {start:.3g} it began "
            "at; look at data and labels, or give `lr_max`"
        )
    lr_max = PEAK_ABOVE_HALF * half_of_the_fall(lrs, losses).lr
    still_low = lowest >= len(curve) - flat
    if still_low and lr_max > (last := lrs[len(curve) - 1]):
        raise S11Error(
            "the range test gives no bounds: the loss had only begun to fall when it ended, at lr "
            f"{last:.3g}; give `lr_max`"
        )
    return lr_max / PEAK_ABOVE_END, lr_max


class HalfOfTheFall(NamedTuple):
    """A point of the range test's curve: a learning rate and a loss in nats."""

    lr: float
    loss: float


def half_of_the_fall(lrs: Sequence[float], losses: Sequence[float]) -> HalfOfTheFall:
    """Where a range test's loss first lies half-way between where it began and its lowest.

    The losses are finite, at least one. The lr is interpolated between two steps, in its logarithm.
    """
    curve = np.asarray(losses, dtype=float)
    loss = (_start(curve) + float(curve.min())) / 2
    after = int(np.argmax(curve <= loss))
    if not after:
        return HalfOfTheFall(lrs[0], loss)
    above, below = curve[after - 1], curve[after]
    part = float((above - loss) / (above - below))
    return HalfOfTheFall(lrs[after - 1] * (lrs[after] / lrs[after - 1]) ** part, loss)


def smoothed(losses: Sequence[float] | Sequence[Tensor]) -> tuple[float, ...]:
    """The mean of five steps' losses around each step, up to the first loss that is not finite.

    fastai's own smoothing remembers some fifty steps, which are four decades of a range test.
    """
    values = np.array([float(loss) for loss in losses])
    finite = np.isfinite(values)
    values = values if finite.all() else values[: int(np.argmin(finite))]
    side = _WINDOW // 2
    return tuple(float(values[max(i - side, 0) : i + side + 1].mean()) for i in range(len(values)))


def _start(curve: np.ndarray) -> float:
    """The loss before the lr is large enough to change anything."""
    return float(np.median(curve[: _n_flat_steps(curve)]))


def _n_flat_steps(curve: np.ndarray) -> int:
    """How many steps at the beginning of a test are taken to change nothing yet."""
    return max(len(curve) // 10, 1)
