"""What a run computes in: chosen by the device, in training alone, and the same after a resume."""

import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from functools import partial
from io import StringIO

import pytest
import run
import torch
from fastai.callback.core import (
    Callback,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelTrainException,
)
from fastai.callback.fp16 import MixedPrecision
from helpers import BOUNDS, ROOT, SMALL, compare, no_pictures_of_predictions, read, rows, stopped
from torch.amp import GradScaler

from s11_fastai import S11ResNet, get_dls, interpret, load_run, s11_learner
from s11_fastai.environment import pick_precision
from s11_fastai.errors import S11Error
from s11_fastai.runs.settings import Settings

CPU = torch.device("cpu")
LAYERS = ("prep.0", "layer1.0", "layer3.4.branch.0", "fc")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

pytestmark = pytest.mark.usefixtures("fewer_pictures")


def learner(images, precision="bf16", **kwargs):
    torch.manual_seed(0)
    dls = get_dls(images, bs=16, device="cpu")
    return s11_learner(dls, S11ResNet(dls.c, 2), precision=precision, **kwargs)


def fit(learn, epochs=1, lr=0.01, **kwargs):
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, lr, **kwargs)
    return learn


class Watch(Callback):
    """The dtypes of what some layers gave, in training and in evaluation."""

    order = 90

    def before_fit(self):
        self.given = {True: set(), False: set()}
        layers = [self.model.get_submodule(name) for name in LAYERS]
        self.hooks = [layer.register_forward_hook(self.note) for layer in layers]

    def note(self, layer, given, output):
        self.given[layer.training].add(output.dtype)

    def after_fit(self):
        for hook in self.hooks:
            hook.remove()


# What is chosen.


@pytest.mark.parametrize("key", ["avx512_bf16", "amx_bf16", "bf16"])
def test_auto_is_bfloat16_only_on_a_cpu_that_computes_in_it(key):
    without = {"avx2": True, "avx512_f": True, key: False, "cpu_name": "AMD EPYC"}
    assert pick_precision("auto", CPU, cpu=without) == "fp32"
    assert pick_precision("auto", CPU, cpu={}) == "fp32"
    assert pick_precision("auto", CPU, cpu=without | {key: True}) == "bf16"
    for name in ("fp32", "bf16", "fp16"):  # what is asked for is what is done
        assert pick_precision(name, CPU, cpu=without) == name


def test_auto_asks_this_processor():
    able = torch.cpu.get_capabilities()
    expected = any(able.get(key) for key in ("avx512_bf16", "amx_bf16", "bf16"))
    assert pick_precision("auto", CPU) == ("bf16" if expected else "fp32")


def test_auto_is_float32_on_mps_whatever_the_cpu_can():
    assert pick_precision("auto", torch.device("mps"), cpu={"bf16": True}) == "fp32"


def test_auto_on_cuda_is_what_that_card_computes_in(monkeypatch):
    cards = {0: (7, 5), 1: (8, 0), 2: (9, 0), None: (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: cards[device.index])
    picked = [pick_precision("auto", torch.device(f"cuda:{i}")) for i in range(3)]
    assert picked == ["fp16", "bf16", "bf16"]
    assert pick_precision("auto", torch.device("cuda")) == "fp16"
    for name in ("fp32", "fp16"):
        assert pick_precision(name, torch.device("cuda:0")) == name
    assert pick_precision("bf16", torch.device("cuda:1")) == "bf16"
    with pytest.raises(S11Error, match="does not compute in bfloat16; choose fp16 or fp32"):
        pick_precision("bf16", torch.device("cuda:0"))


def test_every_name_of_the_setting_is_a_precision_and_no_other_is(capsys):
    names = ("auto", "fp32", "bf16", "fp16")
    assert [Settings(precision=name).precision for name in names] == list(names)
    assert {pick_precision(name, CPU, cpu={}) for name in names} == {"fp32", "bf16", "fp16"}
    with pytest.raises(S11Error, match="half is unknown: choose from auto, fp32, bf16, fp16"):
        pick_precision("half", CPU)
    with pytest.raises(SystemExit) as stop:
        run.main(["--precision", "half"])
    assert stop.value.code == 2
    said = "run.py: --precision must be one of auto, fp32, bf16, fp16, not 'half'\n"
    assert capsys.readouterr().err == said


# What is computed in it.


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_layers_compute_in_it_in_training_and_nothing_else_does(images, precision):
    class Others(Callback):
        order = 90

        def after_batch(self):
            dtypes.update({self.pred.dtype, self.learn.loss.dtype, self.xb[0].dtype})
            assert not torch.is_autocast_enabled("cpu")

        def before_step(self):
            dtypes.update(p.grad.dtype for p in self.model.parameters())

    learn, watch, dtypes = learner(images, precision), Watch(), set()
    fit(learn, 4, cbs=[watch, Others()])  # the first steps of float16 find the scale of its loss
    assert learn.precision == precision
    assert watch.given == {True: {DTYPES[precision]}, False: {torch.float32}}
    assert dtypes == {torch.float32}
    momenta = [state["momentum_buffer"] for state in learn.opt.state_dict()["state"].values()]
    kept = [*learn.model.state_dict().values(), *momenta]
    assert len(momenta) == len(list(learn.model.parameters()))
    assert {value.dtype for value in kept if value.is_floating_point()} == {torch.float32}
    learn.get_preds(cbs=watch)
    assert watch.given == {True: set(), False: {torch.float32}}


def test_gpus_evaluate_in_whole_float32_as_cpus_do(images):
    """Not in TF32, which cuDNN takes for float32: the setting is looked at, no GPU is needed."""

    def note(layer, given):
        seen.add((layer.training, torch.backends.cudnn.conv.fp32_precision))

    learn, seen, default = learner(images), set(), torch.backends.cudnn.conv.fp32_precision
    assert default != "ieee"
    learn.model.fc.register_forward_pre_hook(note)
    fit(learn)
    assert seen == {(True, default), (False, "ieee")}
    seen.clear()
    interpret.predict(learn.model, learn.dls.valid)
    learn.predict(0)
    assert seen == {(False, "ieee")}
    learn.model.fc.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        learn.validate()
    assert torch.backends.cudnn.conv.fp32_precision == default


def test_who_asks_cudnn_for_its_precision_gets_an_answer_in_evaluation(images):
    class Asks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = S11ResNet(3, 1)

        def forward(self, x):
            asked.add(torch.backends.cudnn.allow_tf32)
            with torch.backends.cudnn.flags(enabled=False):
                return self.inner(x)

    def looked():
        return [torch.backends.cudnn.allow_tf32, torch.backends.cudnn.conv.fp32_precision]

    before, asked = looked(), set()
    dls = get_dls(images, bs=16, device="cpu")
    fit(s11_learner(dls, Asks(), precision="fp32"))
    assert asked == {True, False}
    assert looked() == before
    try:
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # from here on nobody can ask
        fit(learner(images))
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    finally:
        torch.backends.cudnn.conv.fp32_precision = before[1]
    assert looked() == before


def test_after_fastais_own_mixed_precision_was_interrupted_ours_is_back(images):
    class Interrupts(Callback):
        def before_epoch(self):
            raise KeyboardInterrupt

    learn, watch = learner(images), Watch()
    with pytest.raises(KeyboardInterrupt):
        fit(learn, cbs=[MixedPrecision(), Interrupts()])
    fit(learn, cbs=watch)
    assert watch.given == {True: {torch.bfloat16}, False: {torch.float32}}


def test_within_somebodys_autocast_the_weights_of_each_step_are_used(images):
    """Torch keeps what it has cast for as long as the outermost autocast goes on."""
    whole, within = learner(images), learner(images)
    fit(whole)
    with torch.autocast("cpu", enabled=False):
        fit(within)
    for ours, theirs in zip(within.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_loss_and_accuracy_are_those_of_the_outputs_in_float32(images):
    class Check(Callback):
        order = 90

        def after_batch(self):
            log_probabilities, labels = self.pred.double(), self.y
            expected = torch.nn.functional.cross_entropy(
                log_probabilities, labels, label_smoothing=0.2
            ).item()
            assert self.learn.loss.item() == pytest.approx(expected, rel=1e-6)
            sums = log_probabilities.exp().sum(1)
            torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-6)

    fit(learner(images), cbs=Check())


def test_it_learns_as_float32_does(images):
    exact, low = (
        fit(learner(images, name), 8, lr=0.1).recorder.losses for name in ("fp32", "bf16")
    )
    assert low[0] != exact[0]
    assert low[0].item() == pytest.approx(exact[0].item(), rel=0.02)
    assert low[-1] < 0.8 * low[0]
    assert exact[-1] < 0.8 * exact[0]


def test_one_precision_takes_the_place_of_another(images):
    learn, watch = learner(images, "fp32"), Watch()
    for change, name in (
        (learn.to_bf16, "bf16"),
        (learn.to_fp16, "fp16"),
        (learn.to_bf16, "bf16"),
        (learn.to_fp32, "fp32"),
        (learn.to_fp16, "fp16"),
        (learn.to_fp32, "fp32"),
    ):
        assert change() is learn
        assert learn.precision == name
        assert len([cb for cb in learn.cbs if isinstance(cb, MixedPrecision)]) == (name != "fp32")
        fit(learn, cbs=watch)
        assert watch.given == {True: {DTYPES[name]}, False: {torch.float32}}


def test_fastais_own_callback_is_let_be(images):
    """On a CPU it does nothing, and says so."""
    learn = fit(learner(images, "fp32", cbs=MixedPrecision("bf16")))
    assert learn.precision == "bf16"


@pytest.mark.parametrize(
    "error",
    [
        ValueError,
        KeyboardInterrupt,
        CancelBatchException,
        CancelTrainException,
        CancelEpochException,
        CancelFitException,
    ],
)
def test_however_a_forward_pass_ends_what_follows_is_in_float32(images, error):
    def fail(layer, given):
        if layer.training:
            assert torch.is_autocast_enabled("cpu")
            raise error("in the middle")

    learn, watch = learner(images), Watch()
    hook = learn.model.layer3.register_forward_pre_hook(fail)
    if issubclass(error, ValueError | KeyboardInterrupt):
        with pytest.raises(error, match="in the middle"):
            fit(learn)
    else:
        learn.recorder.train_metrics = False  # which no batch has come to
        fit(learn, 2, cbs=watch)
        assert watch.given[False] <= {torch.float32}
    assert not torch.is_autocast_enabled("cpu")
    hook.remove()
    fit(learn, cbs=watch)
    assert watch.given == {True: {torch.bfloat16}, False: {torch.float32}}


# A whole run.


def flags_of(pets, precision):
    return ["--data", str(pets), *SMALL, *BOUNDS, "--precision", precision]


@pytest.fixture(scope="module")
def both(pets, tmp_path_factory):
    """A run in each precision: its folder, its Learner and what it said."""
    runs = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path_factory.mktemp("runs") / precision
        with redirect_stdout(StringIO()) as said, no_pictures_of_predictions():
            learn = run.main([*flags_of(pets, precision), "--out", str(out)])
        runs[precision] = out, learn, said.getvalue()
    return runs


@pytest.fixture(params=["fp32", "bf16"])
def whole(request, both):
    """A precision, and what `both` holds of its run."""
    return request.param, *both[request.param]


def test_the_run_says_what_it_computed_in(whole):
    precision, out, learn, said = whole
    assert learn.precision == read(out / "env.json")["precision"] == precision
    assert read(out / "config.json")["precision"] == precision
    assert f"12 steps of 16 images in {precision} on " in said


def test_one_file_of_weights_has_one_figure(whole):
    """To the last digit of the loss, in which bfloat16 would differ."""
    precision, out, learn, _ = whole
    last, results = rows(out / "history.csv")[-1], read(out / "results.json")
    assert results["final_accuracy"] == last["valid_accuracy"]
    opened = load_run(out, device="cpu")
    assert opened.precision == precision
    for each in (learn, opened, opened.to_bf16(), opened.to_fp32()):
        with each.no_bar():
            assert list(each.validate()) == [last["valid_loss"], last["valid_accuracy"]]
            probabilities, labels = each.get_preds()
        right = probabilities.argmax(1) == labels
        assert right.double().mean().item() == results["final_accuracy"]


@pytest.mark.parametrize("batch", [1, 8])  # an epoch has four of training, two of evaluation
def test_stopped_and_resumed_it_ends_the_same_to_the_bit(whole, pets, tmp_path, batch):
    precision, out, *_ = whole
    assert stopped(flags_of(pets, precision), tmp_path / "r", batch) == 130
    resumed = run.main(["--out", str(tmp_path / "r"), "--resume"])
    assert compare(out, tmp_path / "r") == []
    assert resumed.precision == precision


def test_the_comparison_tells_the_precisions_apart(both):
    wrong = compare(both["fp32"][0], both["bf16"][0])
    assert {"model.safetensors", "steps.csv", "env.json"} <= set(wrong)


def test_going_on_in_another_precision_is_said_and_noted(whole, pets, tmp_path, capsys):
    precision, out = whole[0], tmp_path / "r"
    other = {"fp32": "bf16", "bf16": "fp32"}[precision]
    stopped(flags_of(pets, precision), out, 2)
    capsys.readouterr()
    learn = run.main(["--out", str(out), "--resume", "--precision", other])
    said, env = capsys.readouterr().out, read(out / "env.json")
    assert f"precision was {precision}, is {other}" in said
    assert "the run goes on, but not identical to the bit" in said
    assert learn.precision == env["precision"] == other
    (noted,) = env["resumed"]
    assert (noted["step"], noted["precision"]) == (3, [precision, other])
    assert len(rows(out / "steps.csv")) == 12


def test_the_scale_of_float16s_loss_comes_back_with_the_checkpoint(pets, tmp_path, monkeypatch):
    """It begins far too high and is halved in each step until the gradients are finite."""
    whole, out, lost = (tmp_path / name for name in ("whole", "r", "lost"))
    high = partial(GradScaler, init_scale=2.0**24)
    monkeypatch.setattr("s11_fastai.learner.GradScaler", high)
    run.main([*flags_of(pets, "fp16"), "--out", str(whole)])
    assert stopped(flags_of(pets, "fp16"), out, 2) == 130
    shutil.copytree(out, lost)
    run.main(["--out", str(out), "--resume"])
    assert compare(whole, out) == []
    monkeypatch.setattr(GradScaler, "load_state_dict", lambda self, state: None)
    run.main(["--out", str(lost), "--resume"])
    assert "model.safetensors" in compare(whole, lost)


# What its threads do while they wait.


@pytest.mark.parametrize(("of_the_user", "expected"), [(None, "passive"), ("active", "active")])
def test_threads_wait_asleep_unless_the_user_says_otherwise(of_the_user, expected):
    """It is said before torch, which listens once, is imported."""
    code = (
        "import os, sys, run\n"
        "try: run.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        f"assert os.environ['OMP_WAIT_POLICY'] == {expected!r}\n"
        "assert 'torch' not in sys.modules"
    )
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if of_the_user:
        env["OMP_WAIT_POLICY"] = of_the_user
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "experiments",
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
