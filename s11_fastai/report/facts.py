"""What the page of a run says in words: its state, its key figures, and the files beside it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Literal

from s11_fastai.errors import S11Error
from s11_fastai.report.classes import FILE as CLASSES
from s11_fastai.report.classes import ClassRecord
from s11_fastai.runs.records import Records
from s11_fastai.runs.schema import DIVERGED, read_json
from s11_fastai.runs.whole import WEIGHTS

State = Literal["running", "stopped", "diverged", "finished"]
DIVERGED_FILE = "diverged.json"  # why a run cannot go on; gone when it does, with other means

_FILES = {
    "history.csv": "a row an epoch",
    "steps.csv": "a row a batch",
    "predictions.csv": "a row an evaluated image",
    "lr_bounds.json": "bounds and range test",
    CLASSES: "numbers of each class",
    "results.json": "results",
    "config.json": "settings",
    "env.json": "environment",
    WEIGHTS["final"]: "weights after the last epoch",
    WEIGHTS["best"]: "weights of the best epoch",
    "figures/": "all pictures",
}
_PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def state_of(records: Records) -> State:
    """How the run stands in its folder, where no process goes on with it."""
    if records.results:
        return "finished"
    return "diverged" if why_diverged(records) else "stopped"


def why_diverged(records: Records) -> str | None:
    """What ended the run, where that was divergence."""
    with suppress(OSError, S11Error):
        if found := read_json(records.path / DIVERGED_FILE, DIVERGED):
            return found["why"]
    return None


def last_change(records: Records) -> float:
    """When the run's last record was written, by its file, in seconds since 1970; without one, now.

    A copy that keeps no times has that of the copying.
    """
    for name in ("results.json", "history.csv", "config.json"):
        try:
            return (records.path / name).stat().st_mtime
        except OSError:
            continue
    return time.time()


def key_figures(records: Records) -> list[tuple[str, str]]:
    """(name, value) of what there is to say of the run at a glance, once an epoch is over."""
    if not records.history:
        return []
    last, seconds = records.history[-1], sum(row.seconds for row in records.history)
    epochs, speed = len(records.history), records.throughput
    precision = str(records.env.get("precision") or "")
    smoothing = records.settings.label_smoothing
    losses = f"{last.train_loss:.4f} train, {last.valid_loss:.4f} {records.evaluated_on}"
    found = [
        ("Loss", losses + (f", with label smoothing {smoothing:g}" if smoothing else "")),
        ("Time", f"{duration(seconds)} for {epochs} epoch{'s' if epochs > 1 else ''}"),
        ("Speed", f"{speed:,.0f} training images a second, evaluation included" if speed else ""),
        ("Precision", precision and f"{_PRECISIONS.get(precision, precision)} in training"),
    ]
    return [(name, value) for name, value in found if value]


def duration(seconds: float) -> str:
    """Seconds, minutes and seconds, or hours and minutes."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def weights_in_words(found: ClassRecord) -> str:
    """Of which weights the pictures are. A run may have gone on since they were drawn."""
    epoch = "" if found.epoch is None else f", {found.epoch}"
    if found.weights == "best":
        return f"the weights of the best epoch{epoch}"
    if found.weights == "final":
        return f"the weights after the last epoch{epoch}"
    where = "" if found.epoch is None else f" in epoch {found.epoch}"
    return f"the weights of a checkpoint{where}"


def files_beside(records: Records, state: State) -> list[tuple[str, str]]:
    """(name, what it is) of the files of the run that lie beside its page.

    The last of them, `results.json`, is written after the page of a finished run.
    """
    return [
        (name, what)
        for name, what in _FILES.items()
        if (records.path / name).exists() or (name == "results.json" and state == "finished")
    ]
