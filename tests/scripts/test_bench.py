"""The benchmark's own arithmetic, that its sides do the same, and what it shows."""

import json
import multiprocessing
import os
import platform
import re
import shutil
import tempfile
import threading
from dataclasses import replace
from importlib.metadata import version
from types import SimpleNamespace

import bench
import numpy as np
import pytest
import torch
from benchmark import harness, processes, steps, timing
from benchmark.bare import bare_step, in_a_thread, updating
from benchmark.harness import EVALUATION, NETWORK, Stepwise, Stopwatch
from benchmark.inputs import floors, pipelines
from benchmark.peers import Copies, Crops
from benchmark.processes import measure_together, output_of, side_by_side
from benchmark.steps import BEYOND, measure_step, precisions, steps_a_turn
from benchmark.tables import as_json, as_markdown, as_text, facts_of
from benchmark.timing import CPU, PROJECT, Row, Table, round_robin, rows_of, seconds_of
from benchmark.whole import measure_epoch
from fastai.callback.core import Callback
from helpers import ROOT, help_without_heavy_imports

from s11_fastai import S11ResNet, get_dls, s11_learner
from s11_fastai.cli import command_line, message_of
from s11_fastai.data.transforms import channel_stats
from s11_fastai.errors import DivergedError, S11Error, Stopped
from s11_fastai.report.page import write_page
from s11_fastai.sources import ImageSet

SMALL = ["--width", "1", "--bs", "16", "--rounds", "1"]


def test_images_without_a_test_part_are_one_line(image_folder, capsys):
    shutil.rmtree(image_folder / "test")
    with pytest.raises(SystemExit) as stop:
        bench.main(["--data", str(image_folder), "--only", "input"])
    assert stop.value.code == 2
    assert "has no test images, which the bench needs: give others" in capsys.readouterr().err


def test_sides_take_turns_and_ratios_are_those_of_a_round(monkeypatch):
    now, turns = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    # The first is the warm-up; the machine slows down by ten in the last round but one.
    lasts = {"floor": [9, 1, 1, 10, 2], PROJECT: [99, 2, 3, 20, 5], "peer": [9, 8, 6, 40, 10]}

    def side(name):
        def work():
            now[0] += lasts[name][turns.count(name)]
            turns.append(name)

        return lambda: seconds_of(work)

    seconds = round_robin({name: side(name) for name in lasts}, rounds=4)
    assert turns == ["floor", PROJECT, "peer"] * 5
    assert seconds == {name: lasts[name][1:] for name in lasts}
    rows = rows_of(seconds, [lambda s: s, lambda s: 512 / s], PROJECT)
    assert rows[0] == Row("floor", (1.5, 512 / 1.5), pytest.approx(0.45))
    assert [row.values[0] for row in rows] == [1.5, 4, 9]
    assert [row.ratio for row in rows] == [pytest.approx(0.45), 1, 2]
    assert [row.ratio for row in rows_of(seconds, [lambda s: s])] == [None] * 3


TABLES = [
    Table(
        "input",
        ("images/s", "ms a batch"),
        (
            Row("the crops", (1_234_567.8, 0.41471), 0.2),
            Row(PROJECT, (246_913.6, 2.07355), 1.0),
            Row("a part of it", (None, 0.5), 0.24),
        ),
        "Batches on one core.",
    ),
    Table("start", ("s",), (Row("run.py --help", (0.0614,)),), "What a person waits for."),
    Table("memory", ("MiB",), (Row("bare", (814.2,), 0.78),), "Peaks.", "times the memory"),
]


def test_a_system_that_does_not_tell_its_memory_is_measured(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert facts_of(bench.parse(["--data", "x"]), bench.DEFAULTS, CPU, "x")["memory"] == "unknown"


def test_tables_become_text_a_page_and_json(tmp_path):
    argv = ["--data", str(tmp_path / "some" / "c10.tgz"), "--only", "input", "--rounds", "3"]
    args = bench.parse([*argv, "--out", str(tmp_path / "b.md")])
    facts = facts_of(args, bench.DEFAULTS, CPU, "CIFAR-10")
    assert facts["command"] == (
        "python experiments/bench.py --data c10.tgz --only input --rounds 3"
    )
    shown = as_text(TABLES), as_markdown(TABLES, facts), as_json(TABLES, facts)
    text, page, values = shown
    lines = text.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *("input", "the crops", PROJECT, "a part of it", "", "Batches on one core.", ""),
        *("start", "run.py --help", "", "What a person waits for.", ""),
        *("memory", "bare", "", "Peaks."),
    ]
    assert " ".join(lines[0].split()) == "input images/s ms a batch times this project's time"
    assert " ".join(lines[1].split()) == "the crops 1,234,568 0.415 0.2"
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[7].split() == ["start", "s"]  # no ratio, no column for it
    assert "|  | images/s | ms a batch | times this project's time |\n|---|--:|--:|--:|\n" in page
    assert f"| {PROJECT} | 246,914 | 2.07 | 1 |\n| a part of it |  | 0.5 | 0.24 |\n\nBatc" in page
    assert "## Start\n\n|  | s |\n|---|--:|\n| run.py --help | 0.0614 |\n\nWhat a" in page
    assert "|  | MiB | times the memory |\n|---|--:|--:|\n| bare | 814 | 0.78 |" in page
    for part in (facts["command"], "CIFAR-10", "cores", "GiB", f"torch {version('torch')}", "3 r"):
        assert part in page, part
    assert json.loads(values)["tables"] == json.loads(json.dumps([as_plain(t) for t in TABLES]))
    for each in shown:
        assert str(tmp_path) not in each
        assert str(ROOT) not in each
        assert not re.search(rf"\b{re.escape(platform.node() or 'nameless')}\b", each)


def as_plain(table: Table) -> dict:
    return {**table._asdict(), "rows": [row._asdict() for row in table.rows]}


@pytest.fixture
def black_and_white(rng, images) -> ImageSet:
    """Images whose every value is 0 or 255, far from the mean, which holes have."""

    def of(split, n):
        pixels = rng.integers(0, 2, (n, 32, 32, 3)).astype(np.uint8) * 255
        return split._replace(images=pixels, labels=np.arange(n) % 2)

    train, valid = of(images.train, 20), of(images.valid, 4)
    return replace(images, classes=("a", "b"), train=train, valid=valid)


def test_all_sides_of_input_are_the_same_transforms(black_and_white, tmp_path):
    mean, std = (np.array(v)[:, None, None] for v in channel_stats(black_and_white.train.images))
    values = np.stack([(0 - mean) / std, (1 - mean) / std])
    sides = pipelines(black_and_white, 8, tmp_path, workers=0, device=CPU)
    assert len(sides) == 4
    for name, side in sides.items():
        x = next(iter(side.batches))[0].as_subclass(torch.Tensor)
        assert (x.shape, x.dtype) == ((8, 3, 32, 32), torch.float32), name
        x, corners = x.numpy(), set()
        for image in x:
            # Albumentations fills with whole numbers, so not quite with the mean.
            hole = (np.abs(image) < 0.01).all(axis=0)
            top, left = np.argwhere(hole)[0]
            assert hole.sum() == 64, name
            assert hole[top : top + 8, left : left + 8].all(), name
            corners.add((top, left))
            away = np.abs(values - image).min(axis=0)
            assert away[:, ~hole].max() < 1e-5, name
        assert len(corners) > 1, name
        # The zeros of the padding reach into most crops.
        black = np.isclose(x, values[0], atol=1e-5).all(axis=1)
        edges = [
            e.all(axis=1) for e in (black[:, 0], black[:, -1], black[:, :, 0], black[:, :, -1])
        ]
        assert np.any(edges), name


def test_the_floors_give_whole_batches(black_and_white):
    crops, copies = (side.batches for side in floors(black_and_white, 8, CPU).values())
    assert isinstance(crops, Crops)
    assert isinstance(copies, Copies)
    assert [len(batch) for (batch,) in crops] == [8, 8, 4]
    (batch,) = next(iter(crops))
    assert (batch.shape, batch.dtype) == ((8, 32, 96), np.uint8)
    (copy,) = next(iter(copies))
    assert (copy.shape, copy.dtype) == ((8, 3, 32, 32), torch.float32)


class Count(Callback):
    trained = evaluated = 0

    def after_batch(self):
        if self.training:
            Count.trained += 1
        else:
            Count.evaluated += 1


def test_a_fit_goes_on_by_one_batch_a_step(images, monkeypatch):
    monkeypatch.setattr(Count, "trained", 0)
    monkeypatch.setattr(Count, "evaluated", 0)
    dls = get_dls(images, 16, device="cpu")
    learn = s11_learner(dls, S11ResNet(dls.c, 1), cbs=Count())
    with Stepwise(learn, lambda: learn.fit_one_cycle(2, 0.01)) as steps:
        assert Count.trained == 0
        for done in (1, 2, 3, 4):
            steps.step()
            assert (Count.trained, Count.evaluated) == (done, 2 * (done > 3))
    assert Count.trained == 4
    assert not steps.thread.is_alive()


def test_what_a_fit_raises_is_raised_by_the_step(images):
    learn = s11_learner(get_dls(images, 16, device="cpu"), torch.nn.Identity())

    def fails():
        raise ValueError("no such fit")

    with Stepwise(learn, fails) as steps, pytest.raises(ValueError, match="no such fit"):
        steps.step()
    with Stepwise(learn, lambda: None) as steps, pytest.raises(EOFError):
        steps.step()
    assert not steps.thread.is_alive()


def test_a_fit_goes_on_by_one_epoch_a_step(images, monkeypatch):
    monkeypatch.setattr(Count, "trained", 0)
    monkeypatch.setattr(Count, "evaluated", 0)
    learn = s11_learner(get_dls(images, 16, device="cpu"), S11ResNet(3, 1), cbs=Count())
    with Stepwise(learn, lambda: learn.fit_one_cycle(3, 0.01), "epoch") as epochs:
        for done in (1, 2):
            epochs.step()
            assert (Count.trained, Count.evaluated) == (3 * done, 2 * done)
    assert (Count.trained, Count.evaluated) == (6, 4)


@pytest.mark.parametrize(
    ("events", "ticks_of_each"), [(NETWORK, [2 + 1 + 1] * 3), (EVALUATION, [1 + 2])]
)
def test_the_stopwatch_adds_up_what_lies_between_its_events(
    images, monkeypatch, events, ticks_of_each
):
    learn = s11_learner(get_dls(images, bs=16, device="cpu"), S11ResNet(3, 1), precision="fp32")
    watch, ticks, taken = Stopwatch(learn, events), iter(range(1000)), []
    monkeypatch.setattr(harness, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    # The network ticks once itself, in evaluation for each of two batches.
    monkeypatch.setattr(
        learn.model, "forward", lambda x, f=learn.model.forward: (next(ticks), f(x))[1]
    )

    class Take(Callback):
        order = 99

        def after_batch(self):
            if self.training and events is NETWORK:
                taken.append(watch.take())

        def after_epoch(self):
            if events is EVALUATION:
                taken.append(watch.take())

    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.01, cbs=Take())
    assert taken == ticks_of_each


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_the_bare_loop_is_sgd_on_layers_in_its_precision(precision, dtype):
    torch.manual_seed(0)
    models, seen = [S11ResNet(3, 1) for _ in range(2)], []
    models[1].load_state_dict(models[0].state_dict())
    models[0].prep[0].register_forward_hook(lambda _m, _x, out: seen.append(out.dtype))
    x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    update = updating(models[0], precision, CPU, as_the_project=True)
    opt = torch.optim.SGD(
        models[1].parameters(), lr=0.004, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    for _ in range(2):
        update(x, y)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            out = models[1](x)
        torch.nn.functional.nll_loss(out, y).backward()
        opt.step()
        opt.zero_grad()
    assert seen == [dtype] * 2
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


def test_the_measured_run_is_a_real_one(images, capsys):
    with harness.begun_run(images, harness.settings_of(1, 16, CPU)) as run:
        path, rows = run.folder.path, run.record
        page = write_page(run.folder, run.records(), "stopped")  # as "evaluation" measures it
        assert "could not be made" not in page.read_text()
        with Stepwise(run.learn, lambda: harness.fit(run)) as fit:
            fit.step()
            fit.step()
            assert len(rows.batches) == 2
        names = {p.name for p in path.iterdir()}
    assert names >= {"config.json", "env.json", "lr_bounds.json", "report.html", "checkpoint"}
    assert not names & {"history.csv", "results.json"}
    assert not path.exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "error", [Stopped(2), OSError(28, "No space left"), DivergedError("x"), MemoryError()]
)
def test_nobody_is_told_to_go_on_with_the_measured_run(images, error):
    with pytest.raises(type(error)), harness.begun_run(images, harness.settings_of(1, 16, CPU)):
        raise error
    said = message_of(error, "bench.py", ["--only", "input"])
    assert "go on with" not in said
    assert "checkpoint" not in said


def test_a_turn_never_reaches_the_end_of_an_epoch():
    cuda = torch.device("cuda")
    assert steps_a_turn(97, 5, CPU) == 1
    assert steps_a_turn(97, 5, cuda) == 8
    assert steps_a_turn(13, 5, cuda) == 2
    with pytest.raises(S11Error, match="fewer --rounds or --bs"):
        steps_a_turn(5, 5, CPU)


def test_a_step_is_measured_in_every_precision(images, monkeypatch):
    """But for torch.compile, which takes most of a minute and is refused here as without one."""

    def not_compiled(*args, compiled=False, **kwargs):
        return refuse if compiled else bare_step(*args, **kwargs)

    def refuse():
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(steps, "bare_step", not_compiled)
    monkeypatch.setattr(steps, "precisions", lambda _: ["fp32", "bf16"])
    monkeypatch.setattr(steps, "REST", 0)
    table = measure_step(images, width=1, bs=16, rounds=1, device=CPU)
    bare, ours = ([f"{side} in {p}" for p in ("fp32", "bf16")] for side in ("bare loop", PROJECT))
    sides = [row.side for row in table.rows]
    assert sides[:5] == [*bare, *ours, BEYOND]
    assert [side.split(" in ")[0] for side in sides[5:]] == [
        "the same network",
        "a plain torch loop",
    ]
    whole, part = table.rows[3:5]
    assert whole.ratio == 1
    assert part.values[1] is None
    assert 0 < part.ratio == part.values[0] / whole.values[0] < 1
    assert all(row.values[1] == 16 / row.values[0] for row in table.rows if row is not part)


def test_processes_forked_in_the_thread_of_a_step_end_well_and_so_does_the_thread():
    """As DataLoader's workers are: its handler of signals raises where one has failed."""
    codes = []

    def step():
        process = multiprocessing.get_context("fork").Process(target=bool)
        process.start()
        process.join()
        codes.append((process.exitcode, threading.get_ident()))

    one = in_a_thread(step)
    one()
    one()
    assert codes == [(0, codes[0][1])] * 2
    assert codes[0][1] != threading.get_ident()
    ours = next(t for t in threading.enumerate() if t.ident == codes[0][1])
    del one
    ours.join(60)
    assert not ours.is_alive()


def test_what_a_step_in_a_thread_raises_is_raised_where_it_was_asked_for():
    one = in_a_thread(lambda: {}["no such key"])
    for _ in range(2):
        with pytest.raises(KeyError, match="no such key"):
            one()


def test_an_epoch_is_measured_with_its_evaluation(images):
    table = measure_epoch(images, width=1, bs=16, rounds=1, device=CPU)
    *wholes, evaluation = table.rows
    assert [row.side for row in wholes] == [f"{PROJECT} in {p}" for p in precisions(CPU)]
    assert wholes[-1].ratio == 1
    assert 0 < evaluation.ratio == evaluation.values[0] / wholes[-1].values[0] < 1
    assert "40 images in batches of 16, then 24 images evaluated" in table.says


def test_runs_beside_each_other_are_compared_with_one_whose_threads_sleep(monkeypatch):
    """Made-up seconds: those of two runs ten times one's, those of threads that spin twice."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    asked = []

    def measured(runs, policy, *words):
        asked.append((runs, policy))
        policies = output_of(
            "-c",
            "import os; print(repr(os.environ.get('OMP_WAIT_POLICY')))",
            OMP_WAIT_POLICY=policy,
        )
        assert policies.strip() == repr(policy)  # None: as if nobody had set it
        assert words == ("beside", "c10.tgz", 1, 16, 3)
        return 10.0 ** (runs - 1) * (1 if policy else 2)

    monkeypatch.setattr(processes, "side_by_side", measured)
    rows = measure_together("c10.tgz", 1, 16, 3).rows
    assert asked == [(1, None), (1, "passive"), (2, None), (2, "passive")]
    assert [row.values[0] for row in rows] == [row.ratio for row in rows] == [2, 1, 20, 10]
    assert rows[1].side == "one run, threads sleep"
    assert os.environ["OMP_WAIT_POLICY"] == "active"


def test_a_process_that_fails_says_why():
    for call in (lambda: side_by_side(2, None, "nap"), lambda: output_of(*processes.CHILD, "nap")):
        with pytest.raises(S11Error, match=r"to be measured failed: KeyError: 'nap'"):
            call()


def test_a_measurement_from_the_flags_to_the_page(pets, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    n_threads, out = torch.get_num_threads(), tmp_path / "b.md"
    argv = ["--data", str(pets), "--bs", "8", "--rounds", "1", "--only", "input"]
    bench.main([*argv, "--json", "--out", str(out)])
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert [row["side"] for row in table["rows"]][2] == PROJECT
    assert len(table["rows"]) == 6
    assert all(min(*row["values"], row["ratio"]) > 0 for row in table["rows"])
    assert table["rows"][2]["ratio"] == 1
    assert torch.get_num_threads() == n_threads
    assert [p.name for p in tmp_path.iterdir()] == ["b.md"]
    assert out.read_text().startswith("# Benchmark")


def test_what_was_measured_before_a_failure_is_shown(monkeypatch, capsys):
    def measure(section, *_):
        if section == "step":
            raise S11Error("too few steps")
        return TABLES[0]

    monkeypatch.setattr(bench, "measure", measure)
    with pytest.raises(SystemExit):
        bench.main(["--data", "digits", "--json", "--only", "input", "step"])
    shown = capsys.readouterr()
    assert json.loads(shown.out)["tables"][0]["section"] == "input"
    assert shown.err.splitlines()[-1] == "bench.py: too few steps"


@pytest.mark.slow
def test_all_sections_of_a_cpu_from_the_flags_to_the_page(pets, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = tmp_path / "b.md"
    bench.main(["--data", str(pets), *SMALL, "--only", *bench.SECTIONS, "--out", str(out)])
    page = out.read_text()
    for section in bench.SECTIONS:
        assert f"\n## {section.capitalize()}\n" in page, section
    left = {p.name for p in tmp_path.iterdir()}  # torch keeps what it has compiled
    assert {name for name in left if not name.startswith("torchinductor")} == {"b.md"}


def test_on_a_gpu_the_sections_of_the_cpu_alone_are_skipped_with_a_word(capsys):
    asked = bench.parse(["--device", "cuda", "--only", "step", "memory", "run"])
    assert bench.sections_of(asked) == ["step", "run"]
    assert capsys.readouterr().err == "skipped: memory, which is of the CPU alone\n"
    assert bench.sections_of(bench.parse(["--device", "cuda"])) == bench.ON_CUDA
    assert {"input", "step", "epoch", "run"} <= set(bench.ON_CUDA)
    assert bench.sections_of(bench.parse(["--data", "x"])) == bench.ON_CPU


def test_help_needs_nothing_heavy():
    text = help_without_heavy_imports("bench")
    assert "--rounds" in text


@pytest.mark.parametrize(
    "argv",
    [
        ["--rounds", "0", "--data", "x"],
        ["--data", "x", "--workers", "-1"],
        ["--only", "speed"],
        ["--data", "x", "--out", "b.txt"],
        ["--only", "start"],
    ],
)
def test_flags_that_measure_nothing_are_refused_in_one_line(argv, capsys):
    with pytest.raises(SystemExit) as stop, command_line("bench.py"):
        bench.parse(argv)
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
