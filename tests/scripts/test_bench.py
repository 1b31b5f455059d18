"""The benchmark's own arithmetic, that its sides do the same, and what it shows."""

import json
import platform
import tempfile
from importlib.metadata import version
from types import SimpleNamespace

import bench
import numpy as np
import pytest
import run
import torch
from benchmark import network, timing
from benchmark.inputs import Copies, Gather, floors, pipelines
from benchmark.network import Stopwatch
from benchmark.project import fit, flags_of_run
from benchmark.stepwise import Stepwise
from benchmark.tables import as_json, as_markdown, as_text, facts_of
from benchmark.timing import PROJECT, Row, round_robin, rows_of, seconds_of
from fastai.callback.core import Callback
from helpers import ROOT, help_without_heavy_imports

from s11_fastai import S11ResNet, get_dls, s11_learner
from s11_fastai.cli import command_line
from s11_fastai.data.transforms import channel_stats
from s11_fastai.sources import ImageSet, Split


def test_sides_take_turns_and_ratios_are_those_of_a_round(monkeypatch):
    now, turns = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    # The first is the warm-up; the machine slows down by ten in the last round but one.
    lasts = {"limit": [9, 1, 1, 10, 2], PROJECT: [99, 2, 3, 20, 5], "peer": [9, 8, 6, 40, 10]}

    def side(name):
        def work():
            now[0] += lasts[name][turns.count(name)]
            turns.append(name)

        return lambda: seconds_of(work)

    values = round_robin({name: side(name) for name in lasts}, rounds=4)
    assert turns == ["limit", PROJECT, "peer"] * 5
    assert values == {name: lasts[name][1:] for name in lasts}
    rows = rows_of("step", "s", values, "limit", lambda v: 512 / v, "images/s")
    assert rows[0] == Row("step", "limit", 1.5, "s", 512 / 1.5, "images/s", 1, 0.45)
    assert [row.value for row in rows] == [1.5, 4, 9]
    assert [row.to_limit for row in rows] == [1, 2.25, 5.5]
    assert [row.to_project for row in rows] == [pytest.approx(0.45), 1, 2]
    assert [row.to_limit for row in rows_of("start", "s", values)] == [None] * 3


ROWS = [
    Row("input", "the gather", 1_234_567.8, "images/s", 0.41471, "ms a batch", 1, 5),
    Row("input", PROJECT, 246_913.6, "images/s", 2.07355, "ms a batch", 0.2, 1),
    Row("memory", "all images", 175.8, "MiB"),
]


def test_rows_become_a_table_a_page_and_json(tmp_path):
    argv = ["--data", str(tmp_path / "some" / "c10.tgz"), "--only", "input", "--rounds", "3"]
    args = bench.parse([*argv, "--out", str(tmp_path / "b.md")])
    facts = facts_of(args, bench.parser().parse_args([]), "CIFAR-10")
    assert facts["command"] == (
        "python experiments/bench.py --data c10.tgz --only input --rounds 3"
    )
    shown = as_text(ROWS), as_markdown(ROWS, facts), as_json(ROWS, facts)
    text, page, values = shown
    lines = text.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *("input", "the gather", PROJECT, "", "memory", "all images"),
    ]
    assert " ".join(lines[1].split()) == "the gather 1,234,568 images/s 0.415 ms a batch 1 5"
    assert len({len(line) for line in lines[:3]}) == 1
    assert f"| {PROJECT} | 246,914 images/s | 2.07 ms a batch | 0.2 | 1 |" in page
    assert "| all images | 176 MiB |  |  |  |" in page
    for part in (facts["command"], "CIFAR-10", "cores", "GiB", f"torch {version('torch')}", "3 r"):
        assert part in page, part
    assert [Row(**row) for row in json.loads(values)["rows"]] == ROWS
    for each in shown:
        assert str(tmp_path) not in each
        assert str(ROOT) not in each
        assert platform.node() not in each


@pytest.fixture
def black_and_white(rng) -> ImageSet:
    """Images whose every value is 0 or 255, far from the mean, which holes have."""

    def part(n):
        pixels = rng.integers(0, 2, (n, 32, 32, 3)).astype(np.uint8) * 255
        return Split(pixels, np.arange(n) % 2)

    return ImageSet("dots", ("a", "b"), part(20), part(4), "0" * 64)


def test_all_sides_of_input_are_the_same_transforms(black_and_white, tmp_path):
    mean, std = (np.array(v)[:, None, None] for v in channel_stats(black_and_white.train.images))
    values = np.stack([(0 - mean) / std, (1 - mean) / std])
    sides = pipelines(black_and_white, 8, tmp_path, workers=0)
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
    gather, copies = (side.batches for side in floors(black_and_white, 8).values())
    assert isinstance(gather, Gather)
    assert isinstance(copies, Copies)
    assert [len(crops) for (crops,) in gather] == [8, 8, 4]
    (crops,) = next(iter(gather))
    assert (crops.shape, crops.dtype) == ((8, 32, 96), np.uint8)
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


def test_the_networks_part_of_a_step_is_its_three_calls(images, monkeypatch):
    learn = s11_learner(get_dls(images, bs=16, device="cpu"), S11ResNet(3, 1))
    watch, ticks, within = Stopwatch(learn), iter(range(1000)), []
    monkeypatch.setattr(network, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    monkeypatch.setattr(
        learn.model, "forward", lambda x, f=learn.model.forward: (next(ticks), f(x))[1]
    )

    class Look(Callback):
        order = 99

        def after_batch(self):
            within.append((self.training, watch.seconds))

    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.01, cbs=Look())
    assert [seconds for training, seconds in within if training] == [2 + 1 + 1] * 3


def test_the_measured_run_is_a_real_one(images, tmp_path, capsys):
    args = flags_of_run(width=1, bs=16)
    learn = run.learner_of(images, args, torch.device("cpu"))
    with Stepwise(learn, lambda: fit(tmp_path / "r", learn, args)) as steps:
        steps.step()
        steps.step()
    names = {p.name for p in (tmp_path / "r").iterdir()}
    assert names >= {"config.json", "env.json", "lr_bounds.json", "report.html", "checkpoint"}
    assert not names & {"history.csv", "results.json"}


def test_a_measurement_from_the_flags_to_the_page(pets, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    n_threads, out = torch.get_num_threads(), tmp_path / "b.md"
    argv = ["--data", str(pets), "--bs", "8", "--rounds", "1", "--only", "input"]
    bench.main([*argv, "--json", "--out", str(out)])
    rows = [Row(**row) for row in json.loads(capsys.readouterr().out)["rows"]]
    assert [row.side for row in rows][2] == PROJECT
    assert len(rows) == 6
    assert all(row.value > 0 and row.to_limit > 0 and row.to_project > 0 for row in rows)
    assert torch.get_num_threads() == n_threads
    assert [p.name for p in tmp_path.iterdir()] == ["b.md"]
    assert out.read_text().startswith("# Benchmark")


def test_help_needs_nothing_heavy():
    text = help_without_heavy_imports("bench")
    assert "--rounds" in text
    assert "--peak" not in text


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
