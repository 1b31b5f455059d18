"""The defaults of run.py are those of the functions that people call in Python."""

from inspect import signature

import pytest

from s11_fastai import S11ResNet, get_dls, s11_learner
from s11_fastai.learner import S11Learner
from s11_fastai.runs.settings import Settings


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (S11ResNet, ["width", "logit_scale"]),
        (s11_learner, ["momentum", "wd", "label_smoothing", "precision"]),
        (get_dls, ["bs", "seed"]),
    ],
)
def test_a_setting_has_one_default(function, names):
    theirs = signature(function).parameters
    assert {n: theirs[n].default for n in names} == {n: getattr(Settings(), n) for n in names}


def test_one_cycle_ends_where_it_began():
    theirs = signature(S11Learner.fit_one_cycle).parameters
    assert theirs["div"].default == theirs["div_final"].default


def test_the_peak_of_one_cycle_is_that_of_a_run():
    assert (
        signature(S11Learner.fit_one_cycle).parameters["pct_start"].default == Settings().pct_start
    )
