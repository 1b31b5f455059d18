"""The S11 experiment on fastai: one linear cycle of the learning rate, a small ResNet, CIFAR-10.

Names are imported when they are first used, so that `import s11_fastai` costs nothing and the
scripts' --help answers at once.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "S11ResNet": "model",
    "load_images": "sources",
    "get_dls": "data.dls",
    "dls_from_arrays": "data.dls",
    "PadCropFlip": "data.transforms",
    "Cutout": "data.transforms",
    "s11_learner": "learner",
    "find_lr_bounds": "lr_bounds",
    "load_run": "runs.load",
    "triangular": "schedule",
    "linear_one_cycle": "schedule",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
