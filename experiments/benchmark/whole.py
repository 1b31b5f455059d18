"""Sections "epoch", "run" and "evaluation": what takes so long that it is not done in a step."""

import csv
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from benchmark.harness import EVALUATION, Stopwatch, begun_run, project_fit, settings_of
from benchmark.processes import SCRIPT, output_of
from benchmark.steps import precisions
from benchmark.timing import PROJECT, Row, Table, round_robin, rows_of, seconds_of
from s11_fastai import interpret
from s11_fastai.cli import words_of
from s11_fastai.report.page import write_page
from s11_fastai.report.pictures import draw_predictions
from s11_fastai.sources import ImageSet


def measure_epoch(
    images: ImageSet, width: int, bs: int, rounds: int, device: torch.device
) -> Table:
    """Whole epochs of a run in each precision, in turns."""
    sides: dict[str, Callable[[], float]] = {}
    ours = f"{PROJECT} in {precisions(device)[-1]}"
    n_train, n_valid = len(images.train.labels), len(images.valid.labels)
    with ExitStack() as stack:
        for precision in precisions(device):
            settings = settings_of(width, bs, device, precision, epochs=max(24, rounds + 1))
            fit, learn = stack.enter_context(project_fit(images, settings, "epoch"))
            evaluation = Stopwatch(learn, EVALUATION)
            name = f"{PROJECT} in {precision}"
            sides[name] = partial(seconds_of, fit.step, device)
        sides["of that, the evaluation in fp32"] = evaluation.take
        seconds = round_robin(sides, rounds)
    return Table(
        section="epoch",
        units=("s",),
        rows=rows_of(seconds, [lambda s: s], ours),
        says=(
            f"One epoch of the network of width {width}: {n_train:,} images in batches of {bs}, "
            f"then {n_valid:,} images evaluated, with record, checkpoint and page. The ratio is "
            f"to {ours}, its default here."
        ),
    )


def measure_run(data: str | None, width: int, bs: int, device: torch.device) -> Table:
    """One run of run.py as a person starts it, with the defaults of all other settings. Once."""
    flags = {"width": width, "bs": bs, "device": device} | ({"data": data} if data else {})
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        whole = seconds_of(partial(output_of, SCRIPT, *words_of(flags), "--out", out))
        results, env = (
            json.loads((out / name).read_text()) for name in ("results.json", "env.json")
        )
        with (out / "history.csv").open(newline="") as file:
            epochs = sum(float(row["seconds"]) for row in csv.DictReader(file))
    name = f"run.py, {results['epochs']} epochs in {env['precision']}"
    return Table(
        section="run",
        units=("s", "final accuracy in %"),
        rows=(
            Row(name, (whole, 100 * results["final_accuracy"])),
            Row("of that, the epochs with their evaluation", (epochs, None)),
            Row("of that, start, range test, pictures and page", (whole - epochs, None)),
        ),
        says=(
            f"One run of the network of width {width} with {bs} images a batch and seed "
            f"{results['seed']}, from the command to its end; the accuracy is that of the "
            f"{results['evaluated_on']} images."
        ),
    )


def measure_evaluation(images: ImageSet, width: int, bs: int, device: torch.device) -> Table:
    """Each part, for a network with random weights, which is wrong nine times in ten. Once."""
    with begun_run(images, settings_of(width, bs, device)) as run:
        learn, folder = run.learn, run.folder
        learn.model.to(device, memory_format=torch.channels_last)  # as training leaves it
        interpret.predict(learn.model, [learn.dls.valid.one_batch()])  # warm, as after training
        draw_all = partial(draw_predictions, folder, learn, run.settings.seed)
        predict = seconds_of(partial(interpret.predict, learn.model, learn.dls.valid), device)
        draw = seconds_of(draw_all, device) - predict
        page = seconds_of(partial(write_page, folder, run.records(), "stopped"))
    n = len(images.valid.labels)
    return Table(
        section="evaluation",
        units=("s", "images/s"),
        rows=(
            Row(f"predicting {n:,} images in fp32", (predict, n / predict)),
            Row("drawing the pictures of predictions, beyond that", (draw, None)),
            Row("writing the page", (page, None)),
        ),
        says=(
            f"What a run does when training is over, for the network of width {width} with random "
            "weights. Evaluation is in float32, whatever a run is trained in, so that the same "
            "weights give the same figure everywhere. Measured once."
        ),
    )
