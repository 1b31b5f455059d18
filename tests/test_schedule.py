import numpy as np
import pytest

from s11_fastai import linear_one_cycle, triangular


def test_triangular_meets_both_bounds_and_repeats():
    assert triangular(0, 98, 0.1, 0.5) == 0.1
    assert triangular(98, 98, 0.1, 0.5) == 0.5
    assert triangular(49, 98, 0.0, 1.0) == 0.5
    wave = triangular(np.arange(4 * 98), 98, 0.001, 0.01)
    np.testing.assert_allclose(wave[: 2 * 98], wave[2 * 98 :], rtol=1e-12)
    assert (wave.min(), wave.max()) == (0.001, 0.01)


def test_triangular_is_smiths_formula():
    iterations, step_size, lr_min, lr_max = np.arange(1000), 77, 1e-4, 1e-3
    cycle = np.floor(1 + iterations / (2 * step_size))
    x = np.abs(iterations / step_size - 2 * cycle + 1)
    smith = lr_min + (lr_max - lr_min) * np.maximum(0, 1 - x)
    np.testing.assert_allclose(triangular(iterations, step_size, lr_min, lr_max), smith, rtol=1e-12)


def test_one_cycle_meets_its_knots_exactly():
    pcts = np.array([0, 5 / 24, 1])
    np.testing.assert_array_equal(
        linear_one_cycle(pcts, 4e-4, 0.4, 2e-4, 5 / 24), [4e-4, 0.4, 2e-4]
    )


# The learning rate after each epoch as the reference solution (Gilf641/EVA4, S11) logged it.
REFERENCE = [
    [0.00665, 0.01241, 0.01818, 0.02394, 0.02971, 0.02856, 0.02705, 0.02553],
    [0.02402, 0.0225, 0.02099, 0.01948, 0.01796, 0.01645, 0.01493, 0.01342],
    [0.0119, 0.01039, 0.00888, 0.00736, 0.00585, 0.00433, 0.00282, 0.0013],
]
LR_MIN, LR_MAX = 0.03 / 32, 0.03


def test_the_references_log_follows_from_its_bounds_and_its_miscounted_steps():
    """It planned 2,400 steps, 100 an epoch, but took 99 an epoch: so its lr lags behind."""
    steps = np.arange(1, 25) * 99 - 1
    lrs = linear_one_cycle(steps / 2399, LR_MIN, LR_MAX, LR_MIN, 499 / 2399)
    np.testing.assert_allclose(lrs, np.ravel(REFERENCE), atol=6e-6)


def test_our_lr_after_each_epoch_beside_the_references_log():
    """Same bounds, 98 steps an epoch of 2,352: we peak where the reference fell short of it."""
    last_steps = np.arange(1, 25) * 98 - 1
    ours = linear_one_cycle(last_steps / 2352, LR_MIN, LR_MAX, LR_MIN, 5 / 24)
    difference = ours - np.ravel(REFERENCE)
    # While it rises ours is ahead, most at epoch 5, where the reference has 99 * 5 of 500 steps.
    assert (difference[:5] > 0).all()
    assert difference[4] == pytest.approx(0.03 - 0.02971, abs=7e-5)
    # While it falls ours is ahead too, so lower, most at the end: LRMIN, where it is at 0.0013.
    assert (difference[5:] < 0).all()
    assert difference[-1] == pytest.approx(0.03 / 32 - 0.0013, abs=2e-5)
    assert np.abs(difference).max() < 4e-4
