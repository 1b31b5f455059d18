"""Learning-rate curves as pure functions of position, in float64."""

import numpy as np
from numpy.typing import ArrayLike


def triangular(
    iteration: ArrayLike, step_size: float, lr_min: float, lr_max: float
) -> np.float64 | np.ndarray:
    """The cyclical learning rate: a triangle wave between `lr_min` and `lr_max`.

    It starts at `lr_min`, reaches `lr_max` after `step_size` iterations and is back after twice
    as many. `iteration` is a number or an array of any shape; the result has its shape.
    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186.
    """
    distance_from_peak = np.abs(np.asarray(iteration, dtype=np.float64) / step_size % 2 - 1)
    return np.interp(distance_from_peak, [0.0, 1.0], [lr_max, lr_min])


def linear_one_cycle(
    pct: ArrayLike, lr_start: float, lr_max: float, lr_end: float, pct_start: float
) -> np.float64 | np.ndarray:
    """One cycle of straight lines: `lr_start` up to `lr_max` at `pct_start`, down to `lr_end`.

    `pct` is the part of the training that is done, 0 to 1, a number or an array; the three knots
    are met exactly. There is no annihilation phase: nothing lies below the two ends.
    Source: Smith and Topin, "Super-Convergence", arXiv:1708.07120, as a function of knots.
    """
    return np.interp(
        np.asarray(pct, dtype=np.float64), [0.0, pct_start, 1.0], [lr_start, lr_max, lr_end]
    )
