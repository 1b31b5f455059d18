"""Tiny data, small runs and what is read of them: what several test files share."""

import atexit
import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path

# Before anything asks fastai where its folders are: it asks once.
os.environ["FASTAI_HOME"] = tempfile.mkdtemp(prefix="s11-tests-")
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import numpy as np
import pytest
import run
from matplotlib.figure import Figure
from PIL import Image

from s11_fastai import load_images
from s11_fastai.errors import S11Error
from s11_fastai.interpret import Predictions
from s11_fastai.learner import S11Learner
from s11_fastai.plots.letters import texts_of
from s11_fastai.sources import ImageSet, Split

atexit.register(shutil.rmtree, os.environ["FASTAI_HOME"], ignore_errors=True)
ROOT = Path(__file__).parents[1]
# The flags of a run of a second, and the bounds that spare it the range test.
SMALL = ["--width", "1", "--bs", "16", "--epochs", "3", "--peak-epoch", "1", "--device", "cpu"]
BOUNDS = ["--lr-min", "0.001", "--lr-max", "0.01"]


def write_folder(top: Path, rng, classes=("cat", "dog"), n_train=6, n_test=3) -> Path:
    """An image folder of PNGs of noise, whose brightness tells the class."""
    for part, n in (("train", n_train), ("test", n_test)):
        for label, name in enumerate(classes):
            folder = top / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 100, (32, 32, 3)) + 70 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:04d}.png")
    return top


def random_images(rng, n_train=40, n_valid=24, classes=("ant", "bee", "cow")) -> ImageSet:
    """An ImageSet of noise whose classes differ in brightness, so that it can be learned."""

    def part(n: int) -> Split:
        labels = np.arange(n) % len(classes)
        pixels = rng.integers(0, 100, (n, 32, 32, 3)) + (labels * 70)[:, None, None, None]
        return Split(pixels.astype(np.uint8), labels)

    return ImageSet("noise", tuple(classes), part(n_train), part(n_valid), "f" * 64)


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def altered(out, target, accuracy=None, **settings):
    """A copy of a run with other settings, and another accuracy after its last epoch."""
    shutil.copytree(out, target)
    (target / "config.json").write_text(json.dumps(read(out / "config.json") | settings))
    if accuracy is not None:
        lines = (target / "history.csv").read_text().splitlines()
        last = lines[-1].split(",")
        last[4] = str(accuracy)
        (target / "history.csv").write_text("\n".join([*lines[:-1], ",".join(last)]) + "\n")
    return target


def luminance(colour: str) -> float:
    """The relative luminance of a colour as #rrggbb, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def pack(top, target, mode="w:gz"):
    with tarfile.open(target, mode) as tar:
        tar.add(top, arcname=top.name)
    return target


def refused_data(data) -> str:
    with pytest.raises(S11Error) as error:
        load_images(data)
    assert "\n" not in str(error.value)
    return str(error.value)


def stopped(argv, out, batch, which=signal.SIGINT) -> int:
    """The exit code of a run that gets a signal in a batch; evaluated ones are counted too."""
    count = iter(range(batch + 1))
    one_batch = S11Learner.one_batch

    def struck(self, i, b):
        if next(count, None) == batch:
            os.kill(os.getpid(), which)
        one_batch(self, i, b)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S11Learner, "one_batch", struck)
        with pytest.raises(SystemExit) as stop:
            run.main([*argv, "--out", str(out), "--resume"])
    return stop.value.code


@contextmanager
def no_pictures_of_predictions():
    """Most of a small run's time goes into them; the drill compares them to the byte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s11_fastai.report.pictures.draw_predictions", lambda *_, **__: None)
        yield


@contextmanager
def half_pictures():
    """The disk is full when the half of any picture has been written."""

    def half(self, file, **_):
        if isinstance(file, str | Path):
            Path(file).write_bytes(b"half")
        else:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", half)
        yield


def help_without_heavy_imports(script: str, function: str = "parse") -> str:
    """What --help prints, in a process that has to do without the large packages."""
    code = (
        f"import sys, {script}\n"
        f"try: {script}.{function}(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'numpy', 'fastai', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "experiments", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def said(n: int, n_classes: int, wrong: int) -> Predictions:
    """Sure predictions of n images, of which the first few are wrong."""
    labels = np.arange(n) % n_classes
    guesses = np.where(np.arange(n) < wrong, (labels + 1) % n_classes, labels)
    outputs = np.full((n, n_classes), -20.0, np.float32)
    outputs[np.arange(n), guesses] = -1e-6
    return Predictions(outputs, labels)


def size_of_picture(path: Path) -> tuple[int, int]:
    """Width and height of an image file, in pixels."""
    with Image.open(path) as picture:
        return picture.size


def misplaced_texts(figure: Figure) -> list[str]:
    """The texts of a picture that leave it, and the pairs that lie on each other."""
    figure.draw_without_rendering()
    texts = [t for t in texts_of(figure) if t.get_visible() and t.get_text().strip()]
    for axes in figure.axes:  # the labels of ticks outside of a picture are not drawn
        for axis, low_high, k in (
            (axes.xaxis, axes.get_xlim(), 0),
            (axes.yaxis, axes.get_ylim(), 1),
        ):
            low, high = sorted(low_high)
            hidden = [t for t in axis.get_ticklabels() if not low <= t.get_position()[k] <= high]
            texts = [t for t in texts if t not in hidden]
    boxes = [t.get_window_extent().padded(-1) for t in texts]  # to half a pixel
    wrong = [
        f"{t.get_text()!r} leaves the picture"
        for t, box in zip(texts, boxes, strict=True)
        if not (figure.bbox.contains(*box.min) and figure.bbox.contains(*box.max))
    ]
    for i, box in enumerate(boxes):
        wrong += [
            f"{texts[i].get_text()!r} on {texts[k].get_text()!r}"
            for k in range(i)
            if box.overlaps(boxes[k])
        ]
    return wrong


def newest(out):
    return sorted((out / "checkpoint").iterdir())[-1]


def ended(argv, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        run.main([str(a) for a in argv])
    (said,) = capsys.readouterr().err.splitlines()
    return stop.value.code, said


def compare(reference: Path, path: Path) -> list[str]:
    """The files that differ, or are in one folder only; of the history all but the seconds, of
    env.json all but the revision of the code. The page, which tells the time, is left out."""
    skipped = {"report.html", ".lock"}
    theirs, ours = (
        {
            p.relative_to(top).as_posix(): p
            for p in top.rglob("*")
            if p.is_file() and p.name not in skipped and p.parent.name != "checkpoint"
        }
        for top in (reference, path)
    )
    wrong = sorted(theirs.keys() ^ ours.keys())
    for name in sorted(theirs.keys() & ours.keys()):
        if content(theirs[name]) != content(ours[name]):
            wrong.append(name)
    wrong += [p.name for p in path.rglob(".*.part")]
    return wrong


def content(path: Path) -> object:
    if path.name == "env.json":
        return json.loads(path.read_text()) | {"git_revision": None}
    if path.name != "history.csv":
        return path.read_bytes()
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
