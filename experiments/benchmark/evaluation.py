"""Section "evaluation": what a run does when training is over. Once, since it takes minutes."""

import tempfile
from functools import partial
from pathlib import Path

import run
import torch

from benchmark.project import begun, flags_of_run
from benchmark.timing import Row, seconds_of
from s11_fastai import interpret
from s11_fastai.report.page import write_report
from s11_fastai.report.pictures import draw_predictions
from s11_fastai.runs.lock import locked
from s11_fastai.sources import ImageSet


def measure_evaluation(images: ImageSet, width: int, bs: int) -> list[Row]:
    """Seconds of each part, for a network with random weights, which is wrong nine times in ten."""
    args = flags_of_run(width, bs)
    learn = run.learner_of(images, args, torch.device("cpu"))
    learn.model.to(memory_format=torch.channels_last)  # as training leaves it
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        with locked(out):
            begun(out, learn, args)
            predict = seconds_of(partial(interpret.predict, learn.model, learn.dls.valid))
            draw = seconds_of(partial(draw_predictions, out, learn, args.seed)) - predict
            report = seconds_of(partial(write_report, out))
    n = len(images.valid.labels)
    return [
        Row("evaluation", f"predicting {n:,} images", predict, "s", n / predict, "images/s"),
        Row("evaluation", "drawing the pictures beyond that", draw, "s"),
        Row("evaluation", "writing the page", report, "s"),
    ]
