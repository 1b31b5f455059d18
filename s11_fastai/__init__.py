"""The S11 experiment on fastai: one linear cycle of the learning rate, a small ResNet, CIFAR-10.

Names are imported when they are first used, so that `import s11_fastai` costs nothing and the
scripts' help answers at once.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOME = {
    "S11ResNet": "s11_fastai.model",
    "load_images": "s11_fastai.sources",
    "get_dls": "s11_fastai.data.dls",
    "dls_from_arrays": "s11_fastai.data.dls",
    "PadCropFlip": "s11_fastai.data.transforms",
    "Cutout": "s11_fastai.data.transforms",
    "s11_learner": "s11_fastai.learner",
    "find_lr_bounds": "s11_fastai.lr_bounds",
    "triangular": "s11_fastai.schedule",
    "linear_one_cycle": "s11_fastai.schedule",
    "load_run": "s11_fastai.runs.load",
    # The parts of a run, and for anybody's fit.
    "Checkpoints": "s11_fastai.runs.checkpoints",
    "Resume": "s11_fastai.callbacks.checkpoint",
    "SaveCheckpoints": "s11_fastai.callbacks.checkpoint",
    "StopOnDivergence": "s11_fastai.callbacks.stopping",
    "RunReport": "s11_fastai.report.page",
    "claim": "s11_fastai.runs.lock",
    "default_path": "s11_fastai.runs.lock",
    "join_processes": "s11_fastai.callbacks.distributed",
    "say": "s11_fastai.streams",
    "set_seed": "fastai.torch_core",
    "start_run": "s11_fastai.runs.run",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
