"""What only a GPU can show: `pytest -m gpu` on a machine with CUDA."""

import copy
import gc
import json
import os
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import run
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam, ranger
from helpers import (
    BOUNDS,
    ROOT,
    no_pictures_of_predictions,
    random_images,
    read,
    rows,
    stopped,
    write_folder,
)
from torch import nn

from s11_fastai import (
    Resume,
    S11ResNet,
    SaveCheckpoints,
    find_lr_bounds,
    get_dls,
    interpret,
    load_run,
    s11_learner,
)
from s11_fastai.callbacks.distributed import Launched, ShardBatches
from s11_fastai.learner import S11Learner
from s11_fastai.report.pictures import PICTURES
from s11_fastai.storage import pack, unpack

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a GPU with CUDA, and torch finds none here"
    ),
]
# Of the 200 images of `animals`: an epoch has 13 batches of training and 3 of evaluation.
FLAGS = ["--width", "4", "--bs", "16", "--epochs", "2", "--peak-epoch", "1", *BOUNDS]
STEPS, EVALUATIONS = 13, 3


@pytest.fixture
def repeatable(monkeypatch):
    """cuDNN's kernels that repeat themselves, and in the whole of float32."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    top = tmp_path_factory.mktemp("data") / "animals"
    return write_folder(top, np.random.default_rng(0), n_train=100, n_test=20)


def flags(data, precision="auto", device="cuda"):
    return ["--data", str(data), *FLAGS, "--device", device, "--precision", precision]


def has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


def needs(precision) -> None:
    if precision == "bf16" and not has_bf16():
        pytest.skip("this card does not compute in bfloat16")


def learner(precision, n_train=320):
    """Of 20 batches an epoch, all of 16 images."""
    torch.manual_seed(0)
    images = random_images(np.random.default_rng(0), n_train=n_train)
    dls = get_dls(images, bs=16, device="cuda")
    return s11_learner(dls, S11ResNet(dls.c, 8), precision=precision)


def fit(learn, epochs=1, **kwargs):
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, lr=0.01, **kwargs)
    return learn


# Waiting.

WATCHED = [5, 6, 7, 8, 9, 10]


@pytest.fixture
def waiting_is_an_error(monkeypatch):
    """In each epoch's `WATCHED` training steps, the loading of their batches included.

    It gives the list of the steps that were watched to their end. The first steps of a fit may
    wait: their sums begin on the CPU.
    """
    one_batch, watched = S11Learner.one_batch, []

    def one_batch_watched(self, i, batch):
        one_batch(self, i, batch)
        if self.training and torch.cuda.get_sync_debug_mode():
            watched.append(i)
        if self.training and i in (WATCHED[0] - 1, WATCHED[-1]):
            torch.cuda.set_sync_debug_mode("error" if i < WATCHED[0] else "default")

    monkeypatch.setattr(S11Learner, "one_batch", one_batch_watched)
    yield watched
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_waits_for_nothing(waiting_is_an_error, precision):
    needs(precision)
    fit(learner(precision), 2)
    assert waiting_is_an_error == WATCHED * 2


def test_a_step_in_float16_waits_for_its_scaler(waiting_is_an_error):
    """torch.amp.GradScaler looks whether the gradients are finite before the weights change, and
    fastai's MixedPrecision at the scale after it: `item()`, both of them."""
    with pytest.raises(RuntimeError, match="synchronizing CUDA operation"):
        fit(learner("fp16"))


def test_a_step_in_float16_waits_for_nothing_else(waiting_is_an_error, monkeypatch):
    def step_without_a_look(self, optimizer, state):
        return optimizer.step()

    monkeypatch.setattr(torch.amp.GradScaler, "_maybe_opt_step", step_without_a_look)
    monkeypatch.setattr(torch.amp.GradScaler, "get_scale", lambda self: 1.0)
    fit(learner("fp16").to_fp16(init_scale=1.0))
    assert waiting_is_an_error == WATCHED


def test_a_look_at_the_loss_in_each_step_is_noticed(waiting_is_an_error):
    """The check can fail."""

    class Look(Callback):
        def after_loss(self):
            self.learn.loss.item()

    with pytest.raises(RuntimeError, match="synchronizing CUDA operation"):
        fit(learner("fp32"), cbs=Look())


def test_a_step_of_a_run_waits_for_nothing(animals, tmp_path, waiting_is_an_error, capsys):
    """With all that records, guards and keeps it; to `capsys` no progress bar shows the loss."""
    precision = "bf16" if has_bf16() else "fp32"
    with no_pictures_of_predictions():
        run.main([*flags(animals, precision), "--out", str(tmp_path / "r")])
    assert waiting_is_an_error == WATCHED * 2


# A run.


@pytest.fixture(scope="module")
def on_gpu(animals, tmp_path_factory):
    """The folder of a run with its pictures, in what the card is fast in."""
    out = tmp_path_factory.mktemp("runs") / "gpu"
    run.main([*flags(animals), "--out", str(out)])
    return out


def test_a_run_says_what_it_ran_on(on_gpu):
    env = read(on_gpu / "env.json")
    assert env["device"] == "cuda"
    assert env["device_name"] == torch.cuda.get_device_name()
    assert env["precision"] == ("bf16" if has_bf16() else "fp16")


def test_a_run_is_a_cpus_in_float32(animals, tmp_path, repeatable):
    """Last digits differ, and grow from step to step: on a CPU two ways to compute a convolution
    are 1e-6 apart in the first step's loss and 0.03 at most in all 26, of which the last is 0.005.
    """
    plain = ["--label-smoothing", "0", "--logit-scale", "1"]  # whose loss falls far
    with no_pictures_of_predictions():
        for device in ("cpu", "cuda"):
            argv = [*flags(animals, "fp32", device), *plain]
            run.main([*argv, "--out", str(tmp_path / device)])
    cpu, gpu = (rows(tmp_path / device / "steps.csv") for device in ("cpu", "cuda"))
    for name in ("step", "lr", "momentum"):
        assert [row[name] for row in gpu] == [row[name] for row in cpu]
    losses, theirs = ([row["loss"] for row in steps] for steps in (gpu, cpu))
    assert losses[0] == pytest.approx(theirs[0], rel=1e-5)
    assert losses[1:4] == pytest.approx(theirs[1:4], rel=0.02)
    assert losses == pytest.approx(theirs, abs=0.1)
    assert losses[-1] < losses[0] / 5
    accuracies = [rows(tmp_path / d / "history.csv")[-1]["valid_accuracy"] for d in ("cpu", "cuda")]
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_stopped_within_an_epoch_and_resumed(
    animals, tmp_path, repeatable, precision, record_property
):
    """Whether to the bit is noted, and not asked for: cuDNN promises no more than its own part."""
    needs(precision)
    argv, out, batch = flags(animals, precision), tmp_path / "r", 5
    with no_pictures_of_predictions():
        run.main([*argv, "--out", str(tmp_path / "whole")])
        assert stopped(argv, out, batch) == 130
        assert not (out / "history.csv").exists()
        run.main(["--out", str(out), "--resume"])
    whole, resumed = (rows(tmp_path / name / "steps.csv") for name in ("whole", "r"))
    record_property("identical_to_the_bit", resumed == whole)
    for name in ("step", "lr", "momentum"):
        assert [row[name] for row in resumed] == [row[name] for row in whole]
    losses, theirs = ([row["loss"] for row in steps] for steps in (resumed, whole))
    # The first step after the stop has the weights, the second the momentum of before it.
    rel = 1e-3 if precision == "fp32" else 0.05
    assert losses[: batch + 3] == pytest.approx(theirs[: batch + 3], rel=rel)
    assert losses == pytest.approx(theirs, abs=0.2)
    assert "resumed" not in read(out / "env.json")


def test_losses_can_be_drawn_after_each_epoch():
    seen = []

    class Looks(Callback):
        def after_epoch(self):
            seen.extend(loss.device.type for loss in self.recorder.losses)

    learn = learner("auto")
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.01, cbs=Looks())
    assert set(seen) == {"cpu"}


@pytest.mark.parametrize("opt_func", [Adam, ranger])
def test_a_learner_with_fastais_own_optimiser_goes_on(opt_func):
    dls = get_dls(random_images(np.random.default_rng(0)), bs=12, device="cuda")

    def fit(*cbs):
        learn = Learner(dls, S11ResNet(3, 2), CrossEntropyLossFlat(), opt_func=opt_func)
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(2, 0.01, cbs=cbs)
        return learn

    saved = []
    fit(SaveCheckpoints(lambda state: saved.append(pack(copy.deepcopy(state)))))
    state = unpack(*saved[1])
    state["optimiser"]["state"] = [  # as they come from a file
        {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in own.items()}
        for own in state["optimiser"]["state"]
    ]
    if opt_func is ranger:
        state["optimiser"]["slow_weights"] = [
            [value.cpu() for value in group] for group in state["optimiser"]["slow_weights"]
        ]
    assert fit(Resume(state)).train_iter == 2 * len(dls.train)


def test_a_run_begun_on_a_gpu_goes_on_on_a_cpu(animals, tmp_path, capsys):
    out = tmp_path / "r"
    with no_pictures_of_predictions():
        assert stopped(flags(animals, "fp32"), out, STEPS + EVALUATIONS + 5) == 130
        run.main(["--out", str(out), "--resume", "--device", "cpu"])
    assert "device was cuda, is cpu" in capsys.readouterr().out
    assert [row["step"] for row in rows(out / "steps.csv")] == list(range(2 * STEPS))
    assert read(out / "env.json")["device"] == "cpu"


def test_the_weights_have_the_accuracy_that_the_run_reports(on_gpu):
    """On the GPU and on the CPU: both evaluate in float32."""
    last, results = rows(on_gpu / "history.csv")[-1], read(on_gpu / "results.json")
    outputs = []
    for device in ("cuda", "cpu"):
        learn = load_run(on_gpu, device=device)
        assert next(learn.model.parameters()).device.type == device
        with learn.no_bar():
            loss, accuracy = learn.validate()
            probabilities, labels = learn.get_preds()
            assert learn.predict(0)[0] in ("cat", "dog")
        assert accuracy == results["final_accuracy"] == last["valid_accuracy"]
        assert (probabilities.argmax(1) == labels).double().mean().item() == accuracy
        assert loss == pytest.approx(last["valid_loss"], abs=1e-3)
        outputs.append(interpret.predict(learn.model, learn.dls.valid).log_probabilities)
    assert abs(outputs[0] - outputs[1]).max() < 1e-3


def test_all_pictures_are_drawn(on_gpu):
    drawn = {path.stem for path in (on_gpu / "figures").glob("*.png") if path.stat().st_size > 1000}
    assert drawn == {picture.name for picture in PICTURES} - {"lr_find"}
    assert (on_gpu / "report.html").exists()


def test_grad_cam_is_a_cpus(on_gpu, repeatable):
    maps = []
    for device in ("cuda", "cpu"):
        learn = load_run(on_gpu, device=device)
        x, y = learn.dls.valid.one_batch()
        assert x.device.type == device
        maps.append(interpret.grad_cam(learn.model, "layer3", x, y.cpu().numpy()))
    assert maps[1].max() > 0
    assert abs(maps[0] - maps[1]).max() < 1e-2 * maps[1].max()


def test_the_range_test_leaves_no_trace():
    learn = learner("auto")
    weights = {name: value.clone() for name, value in learn.model.state_dict().items()}
    random = torch.cuda.get_rng_state()
    bounds = find_lr_bounds(learn)
    assert 0 < bounds.lr_min < bounds.lr_max
    assert torch.equal(torch.cuda.get_rng_state(), random)
    for name, value in learn.model.state_dict().items():
        assert torch.equal(value.cpu(), weights[name]), name  # which had not gone there yet


# Memory.


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_memory_does_not_grow(precision):
    """But by the smoothed losses, of which fastai's recorder keeps one a step: each takes 512
    bytes, the least that torch gives away. A batch of pictures takes 192 KiB."""

    class Used(Callback):
        order = 90

        def after_batch(self):
            if self.training and self.iter == 10:
                gc.collect()
                used.append(torch.cuda.memory_allocated())

    used, n_steps = [], 20
    fit(learner(precision, n_train=16 * n_steps), 6, cbs=Used())
    assert len(used) == 6
    for before, after in pairwise(used[1:]):  # the first epoch is yet to meet evaluation
        assert after - before <= 2 * 512 * n_steps


# Several processes.


def alone_and_together() -> None:
    """In a process of its own: two fits of which one is that of a launched process; prints JSON."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
    torch.cuda.set_device(0)
    processes, results = Launched(torch.device("cuda:0")), []
    for cbs in ([], [ShardBatches(processes)]):
        learn = fit(learner("fp32"), cbs=cbs)
        synced = any(isinstance(module, nn.SyncBatchNorm) for module in learn.model.modules())
        losses = torch.stack(learn.recorder.losses).tolist()
        results.append([synced, losses, [float(value) for value in learn.recorder.values[-1]]])
    results.append([processes.any(asked) for asked in (False, True, False)])
    assert processes.from_main(lambda: {"lr": 0.1}) == {"lr": 0.1}
    processes.close()
    print(json.dumps(results))


def test_one_launched_process_takes_the_steps_of_one_alone():
    """Through accelerate and NCCL, with SyncBatchNorm in the network.

    With one process accelerate wraps nothing and SyncBatchNorm has nobody to ask; their own work on
    a GPU needs two.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    own, theirs = (ROOT, ROOT / "experiments", Path(__file__).parent), os.environ.get("PYTHONPATH")
    places = os.pathsep.join([*map(str, own), *filter(None, [theirs])])
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    launched |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": places}
    done = subprocess.run(
        [sys.executable, "-c", "import test_gpu; test_gpu.alone_and_together()"],
        env=os.environ | launched,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    alone, together, asked = json.loads(done.stdout.splitlines()[-1])
    assert asked == [False, True, False]
    assert (alone[0], together[0]) == (False, True)
    assert together[1] == pytest.approx(alone[1], abs=0.05)
    assert together[2] == pytest.approx(alone[2], abs=0.1)
