"""What people type at a fastai Learner, on ours and on a stock one: a line each.

To add an idiom, add a line. It is run twice, on the same images and weights: with fastai's own
loaders of PNG files and its Learner, and with those of this project. What stock fastai can do must
work here too, and give as much: `SAME` the same values, `ALIKE` (where something is drawn by
chance) the same types, shapes and names, both the same axes in the pictures.
"""

import ast
import copy
import io
import pickle
import sys
import types
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path

import helpers  # noqa: F401 - first: it gives fastai a home of the tests' own
import numpy as np
import pytest
import torch
import torchvision
from fastai.vision import all as fastai
from fastcore.foundation import L
from matplotlib import pyplot as plt
from PIL import Image

from s11_fastai import S11ResNet, get_dls, load_images, s11_learner
from s11_fastai.data.transforms import channel_stats
from s11_fastai.sources import ImageSet, Split

# All see `learn`, `dls`, `files` (paths of four PNGs), `folder`, what fastai.vision.all exports,
# torchvision, and a few names below. The last expression is what they give.

SAME = """
dls.vocab
dls.c
dls.bs
dls.n
dls.n_inp
dls.device
dls.path
len(dls.train), len(dls.valid), len(dls.train_ds), len(dls.valid_ds)
dls.valid.one_batch()
next(iter(dls.valid))
[x.shape for x, y in dls.valid]
dls.cpu().valid.one_batch()[0].device
dls.to(torch.device("cpu")).device
dls.valid.new(bs=5).one_batch()
dls.valid.new(bs=5, drop_last=True).one_batch()[1]
dls.train.new(shuffle=False, after_batch=None).one_batch()[1]
dls.valid.decode(dls.valid.one_batch())
dls.decode(dls.valid.one_batch())
dls.decode_batch(dls.valid.one_batch(), max_n=3)
dls.valid.decode_batch(dls.valid.one_batch())
dls.valid.show_batch(show=False)
dls.valid.show_batch(max_n=4, nrows=1, figsize=(6, 2))
dls.valid.show_batch(b=dls.valid.one_batch(), max_n=2)
dls.valid.show_batch(unique=True)
dls.after_batch.normalize.mean, dls.after_batch.normalize.std
dls.valid.after_batch.fs.attrgot("name")
sorted(y.item() for b in dls.train for y in b[1])
sorted(y.item() for b in dls.new(bs=7).train for y in b[1])
dls.valid_ds[2][1], dls.train_ds[3][1]
dls.train_ds.vocab, dls.valid_ds.split_idx
dls.test_dl(files).one_batch()
dls.test_dl(files, with_labels=True).one_batch()
dls.test_dl(files, bs=2).n
dls.test_dl([PILImage.create(files[0])]).one_batch()
dls.test_dl([np.array(Image.open(f)) for f in files]).one_batch()
dls.test_dl(dls.valid_ds.items[:3], with_labels=True).one_batch()
DataLoaders(dls.train, dls.valid).valid.one_batch()
pickle.loads(pickle.dumps(dls)).valid.one_batch()
deepcopy(dls).valid.one_batch()
dls.train.new(get_idxs=lambda: list(range(8))).one_batch()[1]
dls.train.new(get_idxs=lambda: [3] * 8).one_batch()[1]
learn.get_preds()
learn.get_preds(ds_idx=1, with_input=True, with_decoded=True, with_loss=True)
learn.get_preds(with_targs=False)
learn.get_preds(with_preds=False, with_loss=True)
learn.get_preds(act=noop)
learn.get_preds(reorder=False)
learn.get_preds(dl=dls.valid)
learn.get_preds(dl=dls.valid.new(shuffle=True))
learn.get_preds(dl=dls.test_dl(files))
learn.get_preds(dl=dls.test_dl(files, with_labels=True), with_loss=True)
learn.get_preds(dl=[dls.valid.one_batch()])
learn.get_preds(ds_idx=0)[1]
learn.validate()
learn.validate(ds_idx=1)
learn.validate(dl=dls.valid)
learn.validate(dl=dls.test_dl(files, with_labels=True))
learn.metrics = [accuracy, error_rate]; learn.validate()
learn.metrics = [partial(top_k_accuracy, k=3), F1Score(average="macro")]; learn.validate()
learn.loss_func = LabelSmoothingCrossEntropyFlat(); learn.validate()
learn.loss_func = FocalLossFlat(); learn.validate()
learn.loss_func = nn.CrossEntropyLoss(); learn.validate()
learn.loss_func = nn.CrossEntropyLoss(); learn.get_preds(act=noop, with_loss=True)
learn.predict(files[0])
learn.predict(str(files[0]))
learn.predict(PILImage.create(files[1]))
learn.predict(Image.open(files[1]))
learn.predict(np.array(Image.open(files[1])))
learn.predict(files[0], with_input=True)
learn.predict(dls.valid_ds.items[2])
learn.recorder.metrics.attrgot("name")
learn.dls.vocab, learn.path, learn.model_dir
learn.save("a"); learn.load("a").get_preds()
learn.save("a", with_opt=False); learn.load("a", with_opt=False).get_preds()
deepcopy(learn).get_preds()
learn.dls = learn.dls.new(bs=8); learn.get_preds()
learn.model.eval()(dls.valid.one_batch()[0])
learn.opt_func = Adam; learn.create_opt(); learn.opt.hypers
learn.show_results()
learn.show_results(max_n=4, shuffle=False)
learn.show_results(ds_idx=0, max_n=2)
learn.show_results(dl=dls.valid, max_n=3, nrows=1)
learn.summary()
found.confusion_matrix()
found.most_confused(min_val=1)
found.plot_confusion_matrix()
found.plot_confusion_matrix(normalize=True, figsize=(4, 4))
found.plot_top_losses(4)
found.plot_top_losses(4, nrows=2, largest=False)
found.plot_top_losses([0, 2])
found.show_results([0, 3])
found.top_losses(5)
len(found.top_losses(5, items=True))
found.top_losses()[0].shape
found.print_classification_report()
Interpretation.from_learner(learn).top_losses(3)
interpreted(dl=dls.test_dl(files, with_labels=True)).confusion_matrix()
interpreted(ds_idx=0).confusion_matrix().sum(1)
interpreted(ds_idx=1).vocab
"""

ALIKE = """
dls.one_batch()
dls.train.one_batch()
next(iter(dls.train))
dls.show_batch()
dls.show_batch(max_n=4, nrows=1)
dls.show_batch(unique=True)
dls.show_batch(nrows=2, ncols=3, figsize=(4, 4))
dls.train.show_batch(show=False, unique=True)
dls.show_batch(unique=True); learn.fit(1)
dls.show_batch(b=dls.one_batch())
dls.train.new(get_idxs=lambda: list(range(16))).one_batch()
dls.train.new(cls=WeightedDL, wgts=np.arange(1, 65)).one_batch()
len(dls.train.new(cls=PartialDL, partial_n=32)), dls.train.new(cls=PartialDL, partial_n=32).one_batch()
dls.train.new(cls=TfmdDL).one_batch()
dls.train.new(shuffle=False).one_batch()
dls.train.new(bs=4, drop_last=True).one_batch()
dls.train.new(n=20).one_batch()
dls.train.new(num_workers=1).one_batch()
[len(y) for x, y in dls.train.new(num_workers=1)]
dls.train = dls.train.new(get_idxs=lambda: list(range(16))); learn.fit(1); len(learn.recorder.losses)
dls.add_tfms([Brightness()], "after_batch"); dls.one_batch()
dls.add_tfms([Flip(), Rotate(), Zoom()], "after_batch"); dls.one_batch()
dls.add_tfms(aug_transforms(), "after_batch", "train"); dls.one_batch()
dls.add_tfms(aug_transforms(size=24), "after_batch"); dls.valid.one_batch()
dls.add_tfms([RandomErasing(p=1.0)], "after_batch"); dls.one_batch()
dls.add_tfms([IntToFloatTensor()], "after_batch"); dls.valid.one_batch()
dls.add_tfms([Brightness()], "after_batch"); learn.fit(1); learn.tta()
dls.add_tfms([Contrast(), Saturation(), Hue()], "after_batch"); learn.fit(1); learn.recorder.metric_names
learn.fit(1); learn.recorder.values
learn.fit(2, 1e-3); learn.recorder.values, learn.recorder.metric_names
learn.fit(1, lr=1e-3, wd=0.1, cbs=CollectDataCallback()); learn.opt.hypers[0]["wd"]
learn.fit(1, slice(1e-4, 1e-2)); learn.recorder.lrs
learn.fit(2, start_epoch=1); len(learn.recorder.losses)
learn.fit(1, reset_opt=True)
learn.fit_one_cycle(1); learn.recorder.values
learn.fit_one_cycle(1, 3e-3)
learn.fit_one_cycle(1, lr_max=3e-3, div=10, div_final=100, pct_start=0.3, moms=(0.95, 0.85, 0.95), wd=0.01)
learn.fit_one_cycle(2, slice(1e-3, 1e-2)); learn.opt.hypers[0].keys() >= {"lr", "mom", "wd"}
learn.fit_one_cycle(1, slice(1e-2))
learn.fit_one_cycle(2, 1e-2, start_epoch=1); len(learn.recorder.losses)
learn.fit_one_cycle(1, 1e-2, reset_opt=True, cbs=[TerminateOnNaNCallback()])
learn.lr = slice(1e-4, 1e-3); learn.fit_one_cycle(1); len(learn.recorder.lrs)
grouped(learn).fit_one_cycle(1, slice(1e-4, 1e-2)); [h["lr"] for h in learn.opt.hypers]
grouped(learn).fit_one_cycle(1, slice(1e-2)); [h["lr"] for h in learn.opt.hypers]
grouped(learn).fit_one_cycle(1, np.array([1e-4, 1e-3, 1e-2])); [h["lr"] for h in learn.opt.hypers]
grouped(learn).fit_one_cycle(1, [1e-4, 1e-3, 1e-2]); len(learn.opt.hypers)
grouped(learn).fit(1, slice(1e-4, 1e-2)); [h["lr"] for h in learn.opt.hypers]
grouped(learn).fine_tune(1); frozen(learn)
grouped(learn).freeze(); frozen(learn)
grouped(learn).freeze_to(1); learn.fit_one_cycle(1); learn.unfreeze(); frozen(learn)
grouped(learn).freeze_to(-2); frozen(learn)
learn.fine_tune(1); learn.recorder.values, frozen(learn)
learn.fine_tune(2, base_lr=1e-3, freeze_epochs=2); len(learn.recorder.losses)
learn.freeze(); learn.fit(1); learn.unfreeze(); frozen(learn)
learn.fit_flat_cos(1, 1e-3)
learn.fit_sgdr(1, 1, 1e-3)
learn.fit_sgdr(2, 1); learn.recorder.plot_sched()
learn.fit_one_cycle(1, moms=(0.95, 0.85, 0.95)); learn.recorder.plot_sched()
learn.fit_one_cycle(1, moms=(0.95, 0.85, 0.95)); learn.recorder.hps
learn.fit(2); learn.recorder.plot_loss()
learn.fit(3); learn.recorder.plot_loss(skip_start=0, with_valid=True, show_epochs=True)
learn.lr_find(num_it=30)
learn.lr_find(num_it=30, suggest_funcs=(minimum, steep, valley, slide))
learn.lr_find(num_it=30, show_plot=False); learn.fit_one_cycle(1, 1e-3)
learn.fit_one_cycle(1, learn.lr_find(num_it=30, show_plot=False).valley)
learn.lr_find(num_it=30, show_plot=False); learn.recorder.plot_lr_find()
learn.fit(1, cbs=ParamScheduler({"lr": SchedExp(1e-3, 1e-2)})); learn.recorder.lrs
learn.fit(1, cbs=ParamScheduler({"lr": combined_cos(0.3, 1e-3, 1e-2, 1e-4)})); learn.recorder.hps
learn.tta()
learn.tta(n=2, beta=None)
learn.tta(ds_idx=0, n=1)
learn.tta(use_max=True, n=2)
learn.tta(dl=dls.test_dl(files), n=1)
learn.tta(n=1, item_tfms=None, batch_tfms=[Flip()])
learn.get_preds(ds_idx=0)
learn.get_preds(dl=dls.train)
learn.get_preds(dl=dls.train, reorder=False, with_input=True)
learn.validate(ds_idx=0)
learn.validate(dl=dls.train)
learn.save("b"); learn.fit(1); learn.load("b")
learn.fit(1); learn.save("b", with_opt=True); learn.load("b", with_opt=True); learn.fit(1)
learn.export(); load_learner(learn.path / "export.pkl").predict(files[0])
learn.fit(1); learn.export("e.pkl"); learn.fit(1); load_learner(learn.path / "e.pkl").get_preds(dl=learn.dls.test_dl(files))
learn.export("f.pkl"); load_learner(learn.path / "f.pkl").dls.vocab
deepcopy(learn).fit(1)
learn.to_fp32().fit(1)
learn.to_channelslast(use_amp=False).fit(1); learn.to_contiguous().fit(1)
learn.dls = learn.dls.new(bs=8); learn.fit(1); len(learn.recorder.losses)
learn.add_cb(ShowGraphCallback()); learn.fit(2)
learn.add_cb(CSVLogger()); learn.fit(1); learn.csv_logger.read_log().columns.tolist()
learn.fit(1, cbs=CSVLogger(fname="h.csv", append=True)); (learn.path / "h.csv").read_text().splitlines()[0]
learn.add_cbs([GradientClip(), TerminateOnNaNCallback]); learn.remove_cb(TerminateOnNaNCallback); learn.cbs.attrgot("name")[-1]
with learn.no_bar(), learn.no_logging(): learn.fit(1)
with learn.no_mbar(): learn.fit(1)
with learn.added_cbs(GradientClip()): learn.fit(1)
with learn.removed_cbs(learn.progress) if hasattr(learn, "progress") else learn.no_bar(): learn.fit(1)
learn.fit(2, cbs=SaveModelCallback(monitor="accuracy")); (learn.path / "models" / "model.pth").exists()
learn.fit(2, cbs=SaveModelCallback(monitor="valid_loss", fname="best", with_opt=True)); learn.load("best", with_opt=True)
learn.fit(2, cbs=SaveModelCallback(every_epoch=True)); sorted(p.name for p in (learn.path / "models").glob("model_*"))
learn.fit(2, cbs=SaveModelCallback(monitor="accuracy", at_end=True, comp=np.greater, min_delta=0.01))
learn.fit(3, cbs=EarlyStoppingCallback(monitor="accuracy", min_delta=2, patience=1)); len(learn.recorder.values)
learn.fit(2, cbs=ReduceLROnPlateau(monitor="valid_loss", min_delta=9, patience=1)); learn.opt.hypers[-1]["lr"]
learn.fit(2, cbs=TrackerCallback("train_loss")); learn.tracker.best is None
learn.fit(1, cbs=MixUp()); learn.recorder.values
learn.fit(1, cbs=MixUp(0.3)); learn.show_results()
learn.fit(1, cbs=CutMix()); learn.recorder.values
learn.fit(1, cbs=GradientAccumulation(32)); learn.recorder.values
learn.fit(1, cbs=GradientClip(0.1)); learn.recorder.values
learn.fit(1, cbs=ActivationStats(with_hist=True)); learn.activation_stats.stats[0][0].keys()
learn.fit(1, cbs=ActivationStats(with_hist=True)); learn.activation_stats.plot_layer_stats(0)
learn.fit(1, cbs=ActivationStats(with_hist=True)); learn.activation_stats.color_dim(0)
learn.fit(1, cbs=ShortEpochCallback(0.3)); len(learn.recorder.losses)
learn.fit(1, cbs=ShortEpochCallback(0.3, short_valid=False)); learn.recorder.values
learn.fit(1, cbs=FetchPredsCallback()); learn.fetch_preds.preds
learn.fit(1, cbs=FetchPredsCallback(ds_idx=0, reorder=True)); learn.fetch_preds.preds[1].shape
learn.fit(1, cbs=BnFreeze()); learn.freeze(); learn.fit(1, cbs=BnFreeze)
learn.fit(1, cbs=CollectDataCallback()); learn.collect_data.data[0]
learn.fit(1, cbs=CollectDataCallback()); len(learn.collect_data.data)
learn.fit(1, cbs=SkipToEpoch(1))
learn.fit(2, cbs=TensorBoardCallback(log_preds=True, trace_model=True)); sorted(Writer.said)
learn.fit(1, cbs=GatherPredsCallback(with_loss=True)); learn.gather_preds.all_tensors()
learn.fit(1, cbs=Callback(after_batch=lambda self: None))
learn.fit(1, cbs=WeightSeen); learn.weight_seen.n
learn.fit(1, cbs=before_batch_cb(lambda self, xb, yb: (xb, yb)))
with Hooks(flatten_model(learn.model), lambda m, i, o: o.shape) as hooks: learn.get_preds(); len(hooks.stored)
with hook_output(flatten_model(learn.model)[0]) as hook: learn.model.eval()(dls.valid.one_batch()[0]); hook.stored
with hook_output(flatten_model(learn.model)[0], grad=True) as hook: learn.loss_func(learn.model(dls.one_batch()[0]), dls.valid.one_batch()[1]).backward(); hook.stored[0].shape
learn.recorder.train_metrics = True; learn.fit(1); learn.recorder.metric_names
learn.metrics = [accuracy, error_rate]; learn.fit(1); learn.recorder.metric_names, learn.recorder.values
learn.metrics = [RocAuc(), Precision(average="macro"), Recall(average="macro"), CohenKappa()]; learn.fit(1); learn.recorder.metric_names
learn.loss_func = LabelSmoothingCrossEntropy(); learn.fit(1); learn.get_preds()
learn.loss_func = FocalLossFlat(); learn.fit(1); learn.get_preds()
learn.loss_func = F.cross_entropy; learn.fit(1); learn.get_preds()
learn.loss_func = CrossEntropyLossFlat(weight=torch.ones(10)); learn.fit(1); learn.get_preds(with_loss=True)
learn.opt_func = Adam; learn.fit_one_cycle(1, 1e-3); learn.opt.hypers
learn.opt_func = ranger; learn.fit_flat_cos(1, 1e-3)
learn.opt_func = partial(Adam, mom=0.8, wd=0.1); learn.fit(1)
learn.opt_func = partial(OptimWrapper, opt=torch.optim.AdamW); learn.fit_one_cycle(1, 1e-3); learn.opt.hypers[0]["lr"]
learn.opt_func = RMSProp; learn.fit(1); learn.lr_find(num_it=20)
learn.opt_func = partial(OptimWrapper, opt=torch.optim.RMSprop); learn.fit_one_cycle(1, 1e-3, moms=(0.9, 0.8, 0.9))
made(loss_func=LabelSmoothingCrossEntropyFlat(), metrics=[accuracy, error_rate], opt_func=ranger).fit(1)
made(metrics=error_rate, wd=0.1, lr=1e-2, moms=(0.9, 0.8, 0.9), wd_bn_bias=False, train_bn=False).fit_one_cycle(1)
made(cbs=[MixUp(), GradientClip()], path=folder, model_dir="m").fit(1); learn.fit(1)
made(model=torchvision.models.resnet18(num_classes=10)).fit_one_cycle(1, 1e-3)
made(model=xresnet18(n_out=10)).fit_one_cycle(1, 1e-3)
made(model=nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))).fit(1)
made(model=torchvision.models.resnet18(num_classes=10), splitter=lambda m: [params(m.conv1), params(m.fc)]).fine_tune(1)
vision_learner(dls, resnet18, pretrained=False, metrics=accuracy).fine_tune(1)
vision_learner(dls, resnet18, pretrained=False).lr_find(num_it=20)
vision_learner(dls, resnet18, pretrained=False).get_preds()
Learner(dls, xresnet18(n_out=10), loss_func=CrossEntropyLossFlat(), metrics=accuracy).fit_one_cycle(1)
Learner(dls, xresnet18(n_out=10), metrics=accuracy).fit(1)
interpreted(ds_idx=0).plot_top_losses(4)
interpreted(ds_idx=0).top_losses(3)
interpreted(dl=dls.train.new(shuffle=False)).plot_confusion_matrix()
learn.show_training_loop()
learn.show_results(ds_idx=0)
for _ in range(2): learn.fit(1)
attempt(lambda: learn.fit(1, cbs=Fails())); learn.fit(1); len(learn.recorder.losses)
"""

# What differs, and why.
OTHER = {}


def lines(table: str) -> list[str]:
    return [line for line in table.strip().splitlines()]


class Writer:
    """Takes what torch's SummaryWriter would write, and refuses what that refuses."""

    said: dict[str, float] = {}

    def __init__(self, log_dir=None):
        Writer.said = {}

    def add_scalar(self, name, value, step):
        self.said[name] = float(value)

    def add_graph(self, model, x):
        torch.jit.trace(model, x, strict=False)

    def close(self):
        pass

    def __getattr__(self, name):
        return lambda *_, **__: None


PARTS = slice(1), slice(1, 3), slice(3, None)


class WeightSeen(fastai.Callback):
    def after_step(self):
        self.n = getattr(self, "n", 0) + 1


class Fails(fastai.Callback):
    def before_step(self):
        raise ValueError


def grouped(learn):
    """The Learner, its network in three groups of parameters."""
    learn.splitter = lambda m: [params_of(list(m.children())[part]) for part in PARTS]
    return learn


def frozen(learn) -> int:
    return sum(not p.requires_grad for p in learn.model.parameters())


def params_of(modules) -> list:
    return [p for module in modules for p in module.parameters()]


def attempt(work) -> None:
    with pytest.raises(ValueError, match=""):
        work()


@pytest.fixture(scope="session")
def few() -> ImageSet:
    digits = load_images("digits")

    def first(split: Split, n: int) -> Split:
        return Split(split.images[:n], split.labels[:n])

    return replace(digits, train=first(digits.train, 64), valid=first(digits.valid, 32))


@pytest.fixture(scope="session")
def paths(few, tmp_path_factory) -> list[Path]:
    """The images as PNG files, those for training first."""
    top, made = tmp_path_factory.mktemp("digits"), []
    for split, part in ((few.train, "train"), (few.valid, "valid")):
        for i, (pixels, label) in enumerate(zip(split.images, split.labels, strict=True)):
            made.append(top / part / few.classes[label] / f"{i:03}.png")
            made[-1].parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(made[-1])
    return made


def stock_dls(few, paths, path) -> fastai.DataLoaders:
    n = len(few.train.labels)
    block = fastai.DataBlock(
        blocks=(fastai.ImageBlock, fastai.CategoryBlock(few.classes, sort=False)),
        get_y=fastai.parent_label,
        splitter=fastai.IndexSplitter(range(n, len(paths))),
        batch_tfms=[fastai.Flip(), fastai.Normalize.from_stats(*channel_stats(few.train.images))],
    )
    return block.dataloaders(paths, bs=16, path=path, num_workers=0, device="cpu", drop_last=False)


def stock_learner(dls, model=None, **kwargs) -> fastai.Learner:
    sgd = partial(torch.optim.SGD, momentum=0.9, nesterov=True, foreach=False, fused=False)
    own = {
        "loss_func": fastai.CrossEntropyLossFlat(),
        "opt_func": partial(fastai.OptimWrapper, opt=sgd),
        "metrics": fastai.accuracy,
        "wd": 5e-4,
        "wd_bn_bias": True,
    }
    return fastai.Learner(dls, model or S11ResNet(dls.c, 4), **own | kwargs)


def own_learner(dls, model=None, **kwargs) -> fastai.Learner:
    return s11_learner(dls, model or S11ResNet(dls.c, 4), precision="fp32", **kwargs)


def typed(line: str, dls, learner, paths) -> tuple[object, list, str]:
    """What a line gives, the axes of its pictures, and what it prints."""
    fastai.set_seed(0)
    learn = learner(dls)
    names = vars(fastai) | HELPERS | {
        "learn": learn,
        "dls": dls,
        "files": paths[:4],
        "folder": learn.path,
        "made": lambda **kwargs: learner(dls, **kwargs),
    }
    if "found" in line:
        names["found"] = fastai.ClassificationInterpretation.from_learner(learn)
    if "interpreted" in line:
        names["interpreted"] = partial(fastai.ClassificationInterpretation.from_learner, learn)
    tree = ast.parse(line)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    plt.close("all")
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, line, "exec"), names)
        value = last and eval(compile(ast.Expression(last.value), line, "eval"), names)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    axes = [
        (len(ax.images), len(ax.lines), bool(ax.get_title())) for f in figures for ax in f.axes
    ]
    plt.close("all")
    return value, axes, printed.getvalue()


def compare(own, stock, exact: bool, where: str = "") -> None:
    """Assert that both are of one kind, and where `exact` of one value."""
    assert kind(own) == kind(stock), where
    if isinstance(stock, torch.Tensor | np.ndarray):
        assert (own.dtype, own.shape) == (stock.dtype, stock.shape), where
        if exact:
            own, stock = (torch.as_tensor(x).as_subclass(torch.Tensor) for x in (own, stock))
            torch.testing.assert_close(own, stock, rtol=1e-3, atol=1e-4, msg=lambda m: where + m)
    elif isinstance(stock, Mapping):
        assert own.keys() == stock.keys(), where
        for key, value in stock.items():
            compare(own[key], value, exact, f"{where}[{key!r}]")
    elif isinstance(stock, list | tuple | L):
        assert len(own) == len(stock), where
        for i, value in enumerate(stock):
            compare(own[i], value, exact, f"{where}[{i}]")
    elif isinstance(stock, float):
        assert not exact or own == pytest.approx(stock, rel=1e-3, abs=1e-4), where
    elif isinstance(stock, str | int | torch.device | Path):
        assert not exact or own == stock, where


def kind(value: object) -> str:
    """The name of the first class that is not this project's."""
    mro = type(value).__mro__
    return next(c.__name__ for c in mro if not c.__module__.startswith("s11_fastai"))


HELPERS = {
    "Writer": Writer, "WeightSeen": WeightSeen, "Fails": Fails, "grouped": grouped,
    "frozen": frozen, "attempt": attempt, "params_of": params_of, "torchvision": torchvision,
    "deepcopy": copy.deepcopy, "pickle": pickle,
}


@pytest.fixture(scope="session")
def tensorboard():
    """fastai's callback, without the package that it writes with."""
    fakes = {"tensorboard": types.ModuleType("tensorboard"), "torch.utils.tensorboard": types.ModuleType("tb")}
    fakes["torch.utils.tensorboard"].SummaryWriter = Writer
    with pytest.MonkeyPatch.context() as patch:
        for name, module in fakes.items():
            patch.setitem(sys.modules, name, module)
        from fastai.callback.tensorboard import TensorBoardCallback
        HELPERS["TensorBoardCallback"] = TensorBoardCallback
        yield


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", lines(SAME) + lines(ALIKE))
def test_what_works_on_stock_works_here(line, few, paths, tmp_path, tensorboard):
    stock = typed(line, stock_dls(few, paths, tmp_path / "s"), stock_learner, paths)
    own_dls = get_dls(few, bs=16, path=tmp_path / "o", device="cpu")
    own = typed(line, own_dls, own_learner, paths)
    compare(own[0], stock[0], line in SAME)
    assert own[1] == stock[1]
