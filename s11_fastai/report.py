"""The page that a person opens: the records of a run folder, made into one file."""

import base64
import csv
import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from s11_fastai.files import write_atomically

# The pictures in the order of the page, each with what it shows.
CAPTIONS = {
    "accuracy": "Accuracy of each epoch",
    "loss": "Loss of each epoch",
    "lr_find": "The learning-rate range test and the bounds it gave",
    "schedule": "The learning rate of every training step",
    "samples": "Five training images of each class",
    "augmented": "One training image as the network sees it",
}


def write_report(run: Path, results: Mapping) -> Path:
    """Make `report.html` from the results and the records in the run folder.

    Its pictures are inside, so that it needs neither the folder nor a network.
    """
    environment = Environment(
        loader=PackageLoader("s11_fastai"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["percent"] = lambda fraction: f"{fraction:.2%}"
    page = environment.get_template("report.html").render(
        results=results,
        config=_json(run / "config.json"),
        env=_json(run / "env.json"),
        history=_rows(run / "history.csv"),
        figures=[
            (_embedded(run / "figures" / f"{name}.png"), text) for name, text in CAPTIONS.items()
        ],
    )
    write_atomically(run / "report.html", page)
    return run / "report.html"


def _json(path: Path) -> dict:
    return json.loads(path.read_text())


def _rows(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _embedded(picture: Path) -> str | None:
    """The picture as a data URI; None where the run drew no such picture."""
    if not picture.exists():
        return None
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
