"""The page that a person opens: the records of a run and its pictures, made into one file."""

from __future__ import annotations

import base64
import html
import io
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from fastai.callback.core import Callback
from PIL import Image

from s11_fastai.callbacks.checkpoint import SaveCheckpoints
from s11_fastai.cli import as_flags, command_of, command_to_resume
from s11_fastai.errors import DivergedError, S11Error
from s11_fastai.report import facts, pictures
from s11_fastai.report import reference_log as reference
from s11_fastai.report.classes import read_record
from s11_fastai.report.curves import CURVES, Curve
from s11_fastai.report.facts import State
from s11_fastai.report.network import Layer, layers
from s11_fastai.report.templating import template
from s11_fastai.runs.records import Records
from s11_fastai.runs.run import MainRun, Run
from s11_fastai.storage import Folder
from s11_fastai.streams import one_line, printable

# Ours have fewer, whatever the number of classes; a small file can have hundreds of millions.
_MOST_PIXELS = 40_000_000


def write_page(folder: Folder, records: Records, state: State = "finished") -> Path:
    """Write `report.html` into the folder of a run, with its figures, and nothing else, inside it.

    Whatever cannot be shown is left out, and the page says so. Raises OSError and S11Error where
    the file cannot be written, and nothing else.
    """
    try:
        page = _render(records, state)
    except Exception as error:
        page = _without_template(state, error)
    return folder.write("report.html", page)


class LivePage(Callback):
    """Writes the page of a run that goes on, when the fit begins and after each epoch.

    `records` gives the records as they are at that moment. Only an OSError or S11Error ends the
    fit; where there are no records to be had, the old page stays, and the log says why.
    """

    order = SaveCheckpoints.order + 2  # a run whose page can be read can be resumed

    def __init__(self, folder: Folder, records: Callable[[], Records]) -> None:
        self.folder, self.records = folder, records

    def before_fit(self) -> None:
        try:
            write_page(self.folder, self.records(), "running")
        except (OSError, S11Error):
            raise
        except Exception as error:
            why = one_line(str(error))
            logging.getLogger(__name__).warning("the page was not written: %s", why)

    def after_epoch(self) -> None:
        self.before_fit()


class RunReport:
    """What a run shows of itself: pictures and page, while it goes on and at its end.

    However the block ends, the page does not go on saying that the run goes on. For processes
    other than the main one there is nothing to show.
    """

    def __init__(self, run: Run) -> None:
        self.run = run if isinstance(run, MainRun) else None

    def __enter__(self) -> RunReport:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is None or self.run is None or not self.run.folder.begun:
            return
        folder, diverged = self.run.folder, isinstance(error, DivergedError)
        if (folder.path / "results.json").exists():  # the run is over, and its page says so
            return
        with suppress(OSError, S11Error):  # what ended the run is what is to be said
            if diverged:
                folder.write_json(facts.DIVERGED_FILE, {"why": str(error)})
            write_page(folder, self.run.records(), "diverged" if diverged else "stopped")

    def callbacks(self) -> list[Callback]:
        """What keeps the page up to date during the fit; the training images are drawn first."""
        if self.run is None:
            return []
        folder = self.run.folder
        if (folder.path / facts.DIVERGED_FILE).exists():  # it goes on, perhaps by other means
            folder.remove(facts.DIVERGED_FILE)
        pictures.draw_images(folder, self.run.learn)
        return [LivePage(folder, self.run.records)]

    def draw(self, records: Records) -> Path:
        """All pictures and the page of a run whose training is over; where the page is."""
        assert self.run is not None
        folder = self.run.folder
        pictures.draw_records(folder, records)
        epoch = len(records.history)
        pictures.draw_predictions(folder, self.run.learn, records.settings.seed, epoch=epoch)
        return write_page(folder, records)


def embedded(picture: Path) -> str | None:
    """A picture as a data URI, in WebP, which takes a third of the bytes; None where it cannot be
    read."""
    try:
        status = picture.stat()
    except OSError:
        return None
    return _packed(picture, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)
def _packed(picture: Path, *_: int) -> str | None:
    """The same; the picture's time and size tell one that was written anew from the old one.

    While a run goes on its pictures do not change, and packing them takes longer than all else.
    """
    packed = io.BytesIO()
    try:
        if not picture.is_file():  # to open a pipe is to wait for ever
            return None
        with Image.open(picture, formats=("PNG",)) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            image.convert("RGB").save(packed, "WEBP", quality=82)
    except Exception:  # a damaged file can mean nearly anything
        return None
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()


def _render(records: Records, state: State) -> str:
    charts, without = _charts(records)
    shown, missing = _pictures(records.path / "figures", finished=state == "finished")
    path = records.path if records.path.name not in ("", "..") else records.path.resolve()
    return template("report.html").render(
        run=records,
        name=printable(records.path.resolve().name),
        state=state,
        now=time.time() if state == "running" else facts.last_change(records),
        pace=_pace(records),
        facts=facts.key_figures(records),
        why_diverged=as_flags(facts.why_diverged(records) or ""),
        charts=charts,
        epochs=records.settings.epochs,
        latest=len(records.history),
        predictions=read_record(records.path),
        pictures=shown,
        left_out=without + missing,
        reference=reference if records.is_cifar10 else None,
        layers=_layers(records),
        files=facts.files_beside(records, state),
        command=printable(command_of(records.settings, f"{path}-again")),
        command_to_resume=printable(command_to_resume(path)),
    )


def _charts(records: Records) -> tuple[dict[str, tuple[Curve, dict]], list[str]]:
    """The curves and their data by their names, and a word on each that cannot be drawn."""
    charts, without = {}, []
    for name, make in CURVES.items():
        try:
            if curve := make(records):
                charts[name] = curve, curve.as_json()
        except Exception as error:  # damaged records can mean nearly anything
            without.append(f"the curve {name} ({error})")
    return charts, without


def _layers(records: Records) -> tuple[Layer, ...]:
    """Those of the network, where the records say how many classes it tells apart."""
    n_classes = records.env.get("classes")
    settings = records.settings
    return layers(n_classes, settings.width, settings.resize) if n_classes else ()


def _pictures(folder: Path, finished: bool) -> tuple[dict[str, list[tuple]], list[str]]:
    """(Picture, data URI) of those on the page, by what they are drawn from, and a word on each
    that cannot be read.

    A picture that is not there is one of the latter where the run is finished.
    """
    shown: dict[str, list[tuple]] = {}
    missing = []
    for picture in pictures.PICTURES:
        path = folder / f"{picture.name}.png"
        if picture.caption is None or not (finished or path.exists()):
            continue
        if uri := embedded(path):
            shown.setdefault(picture.source.__name__, []).append((picture, uri))
        else:
            missing.append(f"{path.name} (it is missing or damaged)")
    return shown, missing


def _without_template(state: State, error: Exception) -> str:
    """What is left of the page where nothing of it can be made."""
    why = html.escape(f"{type(error).__name__}: {error}")
    refresh = '<meta http-equiv="refresh" content="30">' if state == "running" else ""
    return (
        f'<!doctype html>\n<html lang="en" data-state="{html.escape(state)}">\n'
        f'<meta charset="utf-8">{refresh}<link rel="icon" href="data:,">\n'
        f"<title>A run, {html.escape(state)}</title>\n<main>\n"
        f"<h1>The page could not be made</h1>\n<p>{why}</p>\n"
        "<p>The run's own files are not changed by this.</p>\n</main>\n</html>\n"
    )


def _pace(records: Records) -> float | None:
    """Seconds an epoch, by the last three."""
    latest = [row.seconds for row in records.history[-3:]]
    return sum(latest) / len(latest) if latest else None
