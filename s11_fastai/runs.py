"""The run folder: what is written where, and when."""

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from safetensors.torch import save

from s11_fastai.errors import S11Error
from s11_fastai.files import write_atomically
from s11_fastai.learner import n_parameters
from s11_fastai.lr_bounds import LRBounds
from s11_fastai.sources import ImageSet


class EpochRow(NamedTuple):
    """One row of `history.csv`: losses in nats, accuracies as fractions, the epoch's last lr."""

    epoch: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float
    lr: float
    seconds: float


class StepRow(NamedTuple):
    """One row of `steps.csv`; steps count from 0, the loss is the batch's own."""

    step: int
    lr: float
    momentum: float
    loss: float


class RunFolder:
    """The files of one run. Every file is written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history: list[EpochRow] = []
        self.steps: list[StepRow] = []

    @classmethod
    def create(cls, path: Path, config: Mapping, env: Mapping) -> "RunFolder":
        """Begin a run in a new or empty folder; raises S11Error where something lies in it."""
        check_free(path)
        run = cls(path)
        try:
            run.write_json("config.json", config)
            run.write_json("env.json", env)
        except OSError:
            with suppress(OSError):
                path.rmdir()  # where it is empty still
            raise
        return run

    @property
    def best(self) -> EpochRow | None:
        """The epoch with the highest accuracy on the evaluated images, of equals the earliest."""
        return max(self.history, key=lambda row: row.valid_accuracy, default=None)

    def write_json(self, name: str, value: Mapping) -> None:
        write_atomically(self.path / name, json.dumps(value, indent=2) + "\n")

    def write_bounds(self, bounds: LRBounds) -> None:
        self.write_json("lr_bounds.json", asdict(bounds))

    def write_weights(self, name: str, model: torch.nn.Module) -> None:
        """The state dict as safetensors: nothing but names, shapes and numbers."""
        state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
        write_atomically(self.path / name, save(state))

    def write_figure(self, name: str, figure: Figure) -> None:
        image = io.BytesIO()
        figure.savefig(image, format="png")
        write_atomically(self.path / "figures" / f"{name}.png", image.getvalue())

    def finish(self, model: torch.nn.Module, bounds: LRBounds, images: ImageSet, seed: int) -> None:
        """Write the final weights and `results.json`; accuracies there are fractions."""
        self.write_weights("model.safetensors", model)
        results = {
            "params": n_parameters(model),
            "epochs": len(self.history),
            "final_accuracy": self.history[-1].valid_accuracy,
            "best_accuracy": self.best.valid_accuracy,
            "best_epoch": self.best.epoch,
            "lr_min": bounds.lr_min,
            "lr_max": bounds.lr_max,
            "seed": seed,
            "data": images.name,
            "evaluated_on": images.evaluated_on,
        }
        self.write_json("results.json", results)

    def summary(self, evaluated_on: str) -> str:
        """Two lines: the final accuracy, then the best epoch and how it was chosen."""
        return (
            f"final accuracy {self.history[-1].valid_accuracy:.2%} of the {evaluated_on} images\n"
            f"best epoch {self.best.epoch} with {self.best.valid_accuracy:.2%}, "
            f"chosen on the {evaluated_on} images"
        )

    def add_epoch(self, row: EpochRow, steps: Sequence[StepRow], model: torch.nn.Module) -> None:
        """Take in a finished epoch, and its weights where it is the best so far."""
        self.history.append(row)
        self.steps += steps
        if self.best is row:
            self.write_weights("best.safetensors", model)
        write_atomically(self.path / "history.csv", _csv(EpochRow, self.history))
        write_atomically(self.path / "steps.csv", _csv(StepRow, self.steps))


def default_path(data: str | None) -> Path:
    """`runs/<date>-<time>-<data>`, in local time; `data` is the flag's value."""
    name = Path(data or "cifar10").name.split(".")[0].lower()
    slug = re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "data"
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{slug}"


def check_free(path: Path) -> None:
    """Raise S11Error where a run cannot begin in `path` without touching what lies there."""
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if path.exists() and not path.is_dir():
        raise S11Error(f"--out {path} is a file: choose the name of a new folder")
    if (path / "config.json").exists():
        raise S11Error(f"--out {path} holds a run, which is kept: choose another folder")
    if path.exists() and any(path.iterdir()):
        raise S11Error(f"--out {path} is not empty: choose a new or empty folder")
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise S11Error(f"--out {path} cannot be made in {existing}: choose another place")


def _csv(row: type, rows: Sequence[NamedTuple]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(row._fields)
    writer.writerows(rows)
    return text.getvalue()
