"""The page that a person opens: the records of a run folder, made into one file."""

import base64
import io
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image

from s11_fastai.report import reference_log as reference
from s11_fastai.report.curves import HEIGHT, WIDTH, charts_of
from s11_fastai.runs.records import Records, read_records
from s11_fastai.runs.settings import DEFAULTS, flag
from s11_fastai.storage import write_atomically

# The pictures in the order of the page, each with its caption and what it shows in words.
PICTURES = {
    "misclassified": "Misclassified images, with the class that was predicted and the actual one",
    "top_losses": "The images with the highest losses",
    "gradcam": "Where the network looked: Grad-CAM of those images for both classes",
    "gradcam_layers": "Grad-CAM of five of them through the network's layers",
    "confused_pairs": "The pairs most often confused",
    "confusion": "Which classes are taken for which",
    "per_class": "Precision and recall of each class",
    "calibration": "How often the network is right when it is this sure",
    "samples": "Five training images of each class",
    "augmented": "One training image as the network sees it",
}
WIDE = {"gradcam", "confusion"}  # two columns of the page


def write_report(run: Path, state: str = "finished", results: Mapping | None = None) -> Path:
    """Make `report.html` from the records in the run folder, on which alone it depends.

    `state` is "running", "stopped" or "finished"; `results` stand in for those that are not
    written yet. The pictures are inside, the page asks for nothing. Raises S11Error for a folder
    that holds no run.
    """
    records = read_records(run)
    if results:
        records = replace(records, results=dict(results))
    page = _template().render(
        run=records,
        state=state,
        now=time.time(),
        pace=_pace(records),
        charts=charts_of(records),
        width=WIDTH,
        height=HEIGHT,
        reference=reference if records.is_cifar10 else None,
        pictures=[
            (name, picture, caption)
            for name, caption in PICTURES.items()
            if (picture := embedded(run / "figures" / f"{name}.png"))
        ],
        wide=WIDE,
        command=command(records.config),
    )
    write_atomically(run / "report.html", page)
    return run / "report.html"


def command(config: Mapping) -> str:
    """The command that makes the run again, settings that are the default left out."""
    words = ["python", "experiments/run.py"]
    for name, value in config.items():
        if value != DEFAULTS[name]:
            words += [flag(name), str(value)]
    return shlex.join(words)


def embedded(picture: Path) -> str | None:
    """The picture as a data URI, as WebP, which takes a third of the room; None where it cannot
    be read."""
    packed = io.BytesIO()
    try:
        with Image.open(picture, formats=("PNG",)) as image:
            image.convert("RGB").save(packed, "WEBP", quality=82)
    except (OSError, ValueError, SyntaxError):
        return None
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("s11_fastai", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda fraction: f"{fraction:.2%}"
    environment.filters["when"] = lambda t: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(t))
    return environment.get_template("report.html")


def _pace(records: Records) -> float | None:
    """Seconds an epoch, by the last three."""
    latest = [row.seconds for row in records.history[-3:]]
    return sum(latest) / len(latest) if latest else None
