"""Each line of the table, typed at fastai's own loaders and Learner, and at those of this project.

Both have the same images and weights: there PNG files, here arrays. What stock fastai can do must
work here too, and give as much, pictures included.
"""

import ast
import copy  # noqa: F401 - the lines see this and the next ones
import inspect
import io
import pickle  # noqa: F401
import sys
import types
from collections.abc import KeysView, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path

import helpers  # noqa: F401 - first: it gives fastai a home of the tests' own
import matplotlib
import numpy as np
import pytest
import torch
import torchvision  # noqa: F401
from fastai.vision import all as fastai
from fastcore.foundation import CollBase
from idiom_table import ALIKE, IN_BFLOAT16, OTHER, SAME
from matplotlib import pyplot as plt
from PIL import Image
from torch import nn

from s11_fastai import S11ResNet, get_dls, load_images, s11_learner
from s11_fastai.data.transforms import channel_stats
from s11_fastai.sources import ImageSet, Split

N_TRAIN, N_VALID, BS = 48, 16, 16


def lines(table: str) -> list[str]:
    return [line for line in table.strip().splitlines() if not line.startswith("#")]


# The images, and the two ways to a Learner.


@pytest.fixture(scope="module")
def few() -> ImageSet:
    digits = load_images("digits")

    def first(split: Split, n: int) -> Split:
        return Split(split.images[:n], split.labels[:n])

    return replace(digits, train=first(digits.train, N_TRAIN), valid=first(digits.valid, N_VALID))


@pytest.fixture(scope="module")
def files(few, tmp_path_factory) -> list[Path]:
    """The images as PNG files, those for training first."""
    top, made = tmp_path_factory.mktemp("digits"), []
    for part in ("train", "valid"):
        split = getattr(few, part)
        for i, (pixels, label) in enumerate(zip(split.images, split.labels, strict=True)):
            made.append(top / part / few.classes[label] / f"{i}.png")
            made[-1].parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(made[-1])
    return made


def stock_dls(few: ImageSet, files: list[Path], path: Path) -> fastai.DataLoaders:
    block = fastai.DataBlock(
        blocks=(fastai.ImageBlock, fastai.CategoryBlock(few.classes, sort=False)),
        get_y=fastai.parent_label,
        splitter=fastai.IndexSplitter(range(N_TRAIN, N_TRAIN + N_VALID)),
        batch_tfms=[fastai.Flip(), fastai.Normalize.from_stats(*channel_stats(few.train.images))],
    )
    kwargs = {"bs": BS, "path": path, "device": "cpu", "num_workers": 0, "drop_last": False}
    return block.dataloaders(files, **kwargs)


def stock_learner(dls: fastai.DataLoaders, model=None, **kwargs) -> fastai.Learner:
    sgd = partial(torch.optim.SGD, momentum=0.9, nesterov=True, foreach=False, fused=False)
    ours = {
        "loss_func": fastai.CrossEntropyLossFlat(label_smoothing=0.2),
        "opt_func": partial(fastai.OptimWrapper, opt=sgd),
        "metrics": fastai.accuracy,
        "wd": 5e-4,
        "wd_bn_bias": True,
    }
    return fastai.Learner(dls, model or S11ResNet(dls.c, 4), **ours | kwargs)


def own_dls(few: ImageSet, files: list[Path], path: Path) -> fastai.DataLoaders:
    return get_dls(few, bs=BS, path=path, device="cpu")


def own_learner(dls: fastai.DataLoaders, model=None, **kwargs) -> fastai.Learner:
    return s11_learner(dls, model or S11ResNet(dls.c, 4), precision="fp32", **kwargs)


STOCK, OWN = (stock_dls, stock_learner), (own_dls, own_learner)


# What the lines see.


class Writer:
    """Takes what torch's SummaryWriter would write, and refuses what that refuses."""

    said: dict[str, float]

    def __init__(self, log_dir=None):
        Writer.said = {}

    def add_scalar(self, name, value, step):
        self.said[name] = float(value)

    def __getattr__(self, name):
        return lambda *_, **__: None


class Steps(fastai.Callback):
    """Counts steps, and keeps the lrs of the first."""

    def before_fit(self):
        self.n, self.first_lrs = 0, None

    def before_step(self):
        self.n += 1
        self.first_lrs = self.first_lrs or [float(group["lr"]) for group in self.opt.hypers]


class Fails(fastai.Callback):
    def before_step(self):
        raise ValueError("on purpose")


def params(modules) -> list:
    return [p for module in modules for p in module.parameters()]


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.Flatten(), nn.Linear(4 * 8 * 8, 10))


def halves(model: nn.Sequential) -> list[list]:
    return [params(model[:1]), params(model[1:])]


def grouped(learn: fastai.Learner) -> fastai.Learner:
    """The Learner, its network's parameters in three groups."""
    parts = slice(1), slice(1, 3), slice(3, None)
    learn.splitter = lambda model: [params(list(model.children())[part]) for part in parts]
    return learn.add_cb(Steps())


def lrs_at_start(learn: fastai.Learner) -> list[float]:
    return learn.steps.first_lrs


def frozen(learn: fastai.Learner) -> int:
    return sum(not p.requires_grad for p in learn.model.parameters())


def differ(a: torch.Tensor, b: torch.Tensor) -> str:
    return "differ" if not torch.equal(a, b) else "are equal"


def shown_twice(learn: fastai.Learner) -> str:
    """Whether the first half of what was collected, an epoch, is the second half."""
    images = [xb[0] for xb, *_ in learn.collect_data.data]
    half = len(images) // 2
    return differ(images[0], images[half])


def attempt(work) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        work()


def defaults_of(function) -> list:
    return [parameter.default for parameter in inspect.signature(function).parameters.values()]


@pytest.fixture(scope="module")
def surroundings():
    """One thread, as more are slower here; TensorBoard's callback, without the package."""
    writes = types.ModuleType("torch.utils.tensorboard")
    writes.SummaryWriter = Writer
    threads, backend = torch.get_num_threads(), matplotlib.get_backend()
    torch.set_num_threads(1)
    matplotlib.use("Agg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
        patch.setitem(sys.modules, writes.__name__, writes)
        from fastai.callback.tensorboard import TensorBoardCallback

        yield {"TensorBoardCallback": TensorBoardCallback}
    torch.set_num_threads(threads)
    matplotlib.use(backend)


# Typing and comparing.


@pytest.fixture
def typed(few, files, tmp_path, surroundings):
    """What a line gives on one of the two sides, and the axes of the pictures that it draws."""

    def at(line: str, side) -> tuple[object, list[tuple]]:
        make_dls, make_learner = side
        path = tmp_path / make_dls.__name__
        path.mkdir()
        dls = make_dls(few, files, path)
        fastai.set_seed(0)
        learn = make_learner(dls)
        interpreted = partial(fastai.ClassificationInterpretation.from_learner, learn)
        names = vars(fastai) | globals() | surroundings
        names |= {"dls": dls, "learn": learn, "files": files[:4], "interpreted": interpreted}
        names["made"] = partial(make_learner, dls)
        if "found" in line:
            names["found"] = interpreted()
        plt.close("all")
        with redirect_stdout(io.StringIO()):
            value = run(line, names)
        axes = [
            (len(ax.images), len(ax.lines), bool(ax.get_title()))
            for number in plt.get_fignums()
            for ax in plt.figure(number).axes
        ]
        plt.close("all")
        return value, axes

    return at


def run(line: str, names: dict) -> object:
    """Run a line, and give the value of the expression at its end."""
    tree = ast.parse(line)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, line, "exec"), names)
    return last and eval(compile(ast.Expression(last.value), line, "eval"), names)


# Of these, their kind is all that is compared.
NO_VALUE = {"Learner", "Axes", "Axis"}


def compare(own, stock, exact: bool, where: str = "it") -> None:
    """Assert that both are of one kind, and where `exact` of one value."""
    assert kind(own) == kind(stock), where
    if isinstance(stock, torch.Tensor | np.ndarray):
        assert (own.dtype, own.shape) == (stock.dtype, stock.shape), where
        if exact:
            own, stock = (torch.as_tensor(value).detach().numpy() for value in (own, stock))
            np.testing.assert_allclose(own, stock, rtol=1e-3, atol=1e-4, err_msg=where)
    elif isinstance(stock, Mapping):
        assert own.keys() == stock.keys(), where
        for key, value in stock.items():
            compare(own[key], value, exact, f"{where}[{key!r}]")
    elif isinstance(stock, list | tuple | CollBase | KeysView):
        assert len(own) == len(stock), where
        for i, (a, b) in enumerate(zip(own, stock, strict=True)):
            compare(a, b, exact, f"{where}[{i}]")
    elif isinstance(stock, float):
        assert not exact or own == pytest.approx(stock, rel=1e-3, abs=1e-4), where
    elif isinstance(stock, Image.Image):
        compare(np.asarray(own), np.asarray(stock), exact, where)
    elif isinstance(stock, int | np.integer | str | torch.device | Path | None):
        # Names and counts are no chance.
        assert own == stock, where
    else:
        assert kind(stock) in NO_VALUE, f"{where} is a {kind(stock)}, of which nothing is compared"


def kind(value: object) -> str:
    """The name of the first class that is not this project's."""
    if isinstance(value, float):
        return "float"
    classes = type(value).__mro__
    return next(c.__name__ for c in classes if not c.__module__.startswith("s11_fastai"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("line", "exact"),
    [
        pytest.param(line, table is SAME, id=line)
        for table in (SAME, ALIKE)
        for line in lines(table)
    ],
)
def test_it_gives_what_stock_gives(line, exact, typed):
    (own, own_axes), (stock, axes) = typed(line, OWN), typed(line, STOCK)
    compare(own, stock, exact=exact)
    assert own_axes == axes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", OTHER)
def test_it_gives_something_else(line, typed):
    (own, _), (stock, _) = typed(line, OWN), typed(line, STOCK)
    with pytest.raises(AssertionError):
        compare(own, stock, exact=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", IN_BFLOAT16)
def test_it_works_in_bfloat16_too(line, typed):
    """Which is the default where the processor computes in it."""

    def in_bfloat16(dls, **kwargs) -> fastai.Learner:
        return s11_learner(dls, S11ResNet(dls.c, 4), precision="bf16", **kwargs)

    value, _ = typed(line, (own_dls, in_bfloat16))
    if isinstance(value, torch.Tensor):
        assert value.dtype == torch.float32
