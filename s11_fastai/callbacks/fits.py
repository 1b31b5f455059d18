"""What tells a fit from the other occasions on which a Learner calls its callbacks."""

from typing import Any

from fastai.callback.core import Callback
from fastai.learner import Learner


def may_be_fit(learn: Learner) -> bool:
    """Whether a fit may be what begins: no range test, prediction or `learn.validate`.

    `learn.tta` looks like one, and a fit within `learn.no_mbar` does not.
    """
    called_so = any(callback_of(learn, name) for name in ("lr_finder", "gather_preds"))
    return learn.opt is not None and learn.create_mbar and not called_so


def callback_of(learn: Learner, name: str) -> Any:
    """The Learner's callback of this name, as of what it does at the moment, or None.

    It is asked of `vars`: what a Learner lacks, fastai looks for in its model.
    """
    return vars(learn).get(name)


class FitCallback(Callback):
    """Knows by `in_fit` whether what it hears is of a fit, from its first training on.

    A range test, a prediction and an evaluation by themselves are none. It does not lean on `run`,
    which fastai puts back in `after_fit` alone: a fit that was interrupted or failed has none.
    """

    trains = False

    @property
    def in_fit(self) -> bool:
        """False also for predictions that are gathered within a fit."""
        return self.trains and not callback_of(self.learn, "gather_preds")

    def begin_fit(self) -> None:
        """Called once a fit, before its first training; for subclasses."""

    def before_fit(self) -> None:
        if not callback_of(self.learn, "gather_preds"):
            self.trains = False

    def before_train(self) -> None:  # which a fit and a range test alone have
        if not self.trains and not callback_of(self.learn, "lr_finder"):
            self.trains = True
            self.begin_fit()
