"""LRMIN and LRMAX from fastai's range test."""

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from fastai.callback.schedule import LRFinder, ParamScheduler
from fastai.learner import Learner
from fastcore.foundation import L

from s11_fastai.errors import S11Error

RANGE_TEST_STEPS = 100
_FEWEST_STEPS = 20
_SMALLEST_FALL = 0.02


@dataclass(frozen=True)
class LRBounds:
    """Where the cycle begins and ends (`lr_min`), its peak (`lr_max`), and the range test's curve.

    `lrs` and `losses` have one value for each step of the test while the loss was finite; they
    are empty where the bounds were given by hand.
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

    A bound that is given is kept; where both are, no test is run. Weights, buffers, optimiser,
    recorder, loaders and every random number generator are as before when it returns, and also
    when it fails; nothing is written to disk. Raises S11Error as `bounds_of` does, and where the
    bound that was found lies on the wrong side of the given one.
    """
    if lr_min and lr_max:
        if lr_min >= lr_max:
            raise S11Error(f"`lr_min` {lr_min:g} must be below `lr_max` {lr_max:g}")
        return LRBounds(lr_min, lr_max)
    lrs, losses = _range_test(learn, num_it)
    low, high = bounds_of(lrs, losses)
    low, high = lr_min or low, lr_max or high
    if low >= high:
        raise S11Error(
            f"`lr_min` {low:.3g} is not below `lr_max` {high:.3g} (the range test gave "
            "the one that was not given): give both `lr_min` and `lr_max`"
        )
    n = _finite(losses)
    return LRBounds(low, high, lrs[:n], losses[:n])


def _range_test(learn: Learner, num_it: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The learning rate and the smoothed loss of each step."""
    epochs = num_it // len(learn.dls.train) + 1
    with _untouched(learn), learn.no_bar(), learn.no_logging():
        learn.fit(epochs, cbs=_RangeTest(num_it=num_it))
        recorder = learn.recorder
        return tuple(map(float, recorder.lrs)), tuple(map(float, recorder.losses))


class _RangeTest(LRFinder):
    """What `learn.lr_find` adds to a fit, without its files: `_untouched` keeps the weights.

    It would write them below `learn.path`, read them back by unpickling, and leave them there where
    the process is killed; with several processes it would wait for the others.
    """

    name = "lr_finder"  # by which other callbacks know that this is no training

    def before_fit(self) -> None:
        ParamScheduler.before_fit(self)
        self.best_loss = float("inf")

    def after_fit(self) -> None:
        self.learn.opt.zero_grad()


@contextmanager
def _untouched(learn: Learner) -> Iterator[None]:
    """Whatever happens to the Learner inside, put everything back that training depends on."""
    model, loaders = learn.model, list(learn.dls.loaders)
    weights = copy.deepcopy(model.state_dict())
    modes = [(module, module.training) for module in model.modules()]
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    optimiser = learn.opt and copy.deepcopy(learn.opt.state_dict())
    kept = [(thing, dict(vars(thing))) for thing in (learn, learn.recorder, *loaders)]
    cbs = list(learn.cbs)
    loader_rngs = [(dl.rng, dl.rng.getstate()) for dl in loaders]
    rngs = random.getstate(), np.random.get_state()
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    device = torch.device(learn.dls.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # and the CPU's
        try:
            yield
        finally:
            for thing, attributes in kept:
                vars(thing).clear()
                vars(thing).update(attributes)
            learn.cbs = L(cbs)
            for cb in cbs:
                cb.learn = learn
            model.load_state_dict(weights)
            for module, training in modes:
                module.training = training
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            if optimiser:
                learn.opt.load_state_dict(optimiser)
            for rng, state in loader_rngs:
                rng.setstate(state)
            random.setstate(rngs[0])
            np.random.set_state(rngs[1])
            if mps is not None:
                torch.mps.set_rng_state(mps)


def bounds_of(lrs: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    """LRMIN and LRMAX from the curve of a range test: lrs that grow, smoothed losses in nats.

    They are the two sides of the curve's valley at half its depth. At LRMIN the loss has made
    half of its fall; below it little is learned. At LRMAX half of that fall is lost again: steps
    do harm there to a network that comes straight from its random weights, as in the test, but
    the cycle gets there after epochs of warm-up, and large rates in its middle are what it is
    for. fastai's suggestions all lie on the falling side, below what trains this network best.
    Source: the range test of Smith, arXiv:1506.01186, section 3.3; half the depth is our reading.

    Raises S11Error where the curve is too short, is not finite from the start, or never falls.
    """
    finite = _finite(losses)
    if finite < _FEWEST_STEPS:
        why = "the loss was not finite any more" if finite < len(losses) else "the test was over"
        raise S11Error(
            f"the range test gives no bounds: after {finite} steps {why}, and {_FEWEST_STEPS} are "
            "needed; look at the data, or give `lr_min` and `lr_max`"
        )
    curve = np.asarray(losses[:finite], dtype=float)
    flat, lowest = _flat(curve), int(curve.argmin())
    start = float(np.median(curve[:flat]))
    fall = start - curve[lowest]
    if lowest < flat or fall < _SMALLEST_FALL * abs(start):
        raise S11Error(
            f"the range test gives no bounds: the loss never fell below the {start:.3g} it began "
            "at; look at data and labels, or give `lr_min` and `lr_max`"
        )
    below = curve <= half_depth(curve)
    risen = np.flatnonzero(~below[lowest:])
    first, last = int(np.argmax(below)), lowest + risen[0] if len(risen) else finite - 1
    if first >= last:
        raise S11Error(
            "the range test gives no bounds: the loss had only begun to fall when it ended, at lr "
            f"{lrs[finite - 1]:.3g}; give `lr_min` and `lr_max`"
        )
    return float(lrs[first]), float(lrs[last])


def half_depth(losses: Sequence[float] | np.ndarray) -> float:
    """The loss at half the depth of the valley, where `bounds_of` finds the bounds, in nats.

    `losses` are finite, at least one.
    """
    curve = np.asarray(losses, dtype=float)
    start = float(np.median(curve[: _flat(curve)]))
    return start - (start - float(curve.min())) / 2


def _flat(curve: np.ndarray) -> int:
    """How many steps at the beginning of a test are taken to change nothing yet."""
    return max(len(curve) // 10, 1)


def _finite(losses: Sequence[float]) -> int:
    """How many losses come before the first that is NaN or infinite."""
    return len(losses) if np.isfinite(losses).all() else int(np.argmin(np.isfinite(losses)))
