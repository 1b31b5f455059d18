"""What of a finished run is published: its records and pictures, and its weights as float16.

    python experiments/publish.py runs/full results/full/seed-1
    python experiments/publish.py runs/full results/full/seed-1 --records-only
    python experiments/publish.py runs/full results/full/seed-1 --weights seed-1.safetensors

The weights are evaluated on the test images as float16 holds them, and their file claims what they
reach so. Nothing that is there is overwritten.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import TYPE_CHECKING

from s11_fastai.cli import Parser, command_line, path_flag
from s11_fastai.errors import S11Error
from s11_fastai.streams import say

if TYPE_CHECKING:
    from s11_fastai.runs.records import Records
    from s11_fastai.storage import Folder

RECORDS = (
    "env.json",
    "results.json",
    "lr_bounds.json",
    "classes.json",
    "history.csv",
    "steps.csv",
)
MOST_BYTES = 400_000  # of a picture as it was drawn
SMALL = 1200  # pixels across that are left of a larger one


def main(argv: list[str] | None = None) -> None:
    """Publish the run that the flags name."""
    with command_line(__file__, argv):
        publish(parse(argv))


def publish(args: argparse.Namespace) -> None:
    """The weights, if they are asked for, then records and perhaps pictures into a new folder."""
    from s11_fastai.runs.records import read_records
    from s11_fastai.storage import Folder

    for place in (args.folder, args.weights):
        if place and place.exists():
            raise S11Error(f"{place} exists and is kept: give another name")
    records = read_records(args.run)
    if not records.results:
        raise S11Error(f"{args.run} is not finished: finish the run first")
    if args.weights:
        publish_weights(args)
    folder = Folder(args.folder)
    publish_records(folder, records)
    if not args.records_only:
        publish_pictures(folder, args.run / "figures")
    say(f"records {'' if args.records_only else 'and pictures '}are in {args.folder}")


def publish_records(folder: Folder, records: Records) -> None:
    """Those that are there, as they are; of the settings, of the images only their file's name."""
    data = records.settings.data
    found = {name: path.read_bytes() for name in RECORDS if (path := records.path / name).exists()}
    folder.write_json("config.json", records.config | {"data": data and Path(data).name})
    for name, content in found.items():
        folder.write(name, content)


def publish_pictures(folder: Folder, figures: Path) -> None:
    """The pictures that show what came of the run, those of its training images left out.

    They stay as they were drawn; those of many photographs, which are large, become smaller WebP.
    """
    from s11_fastai.report.pictures import PICTURES, Inputs

    for picture in PICTURES:
        path = figures / f"{picture.name}.png"
        if picture.source is Inputs or not path.exists():
            continue
        png = path.read_bytes()
        if len(png) <= MOST_BYTES:
            folder.write(path.name, png)
        else:
            folder.write(f"{picture.name}.webp", small_webp(png))


def small_webp(png: bytes) -> bytes:
    """A picture, SMALL pixels across."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    size = SMALL, round(picture.height * SMALL / picture.width)
    file = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(file, "WEBP", quality=92, method=6)
    return file.getvalue()


def publish_weights(args: argparse.Namespace) -> None:
    """The final weights, with the accuracy and loss that float16 leaves them."""
    from evaluate import claim_of, in_words, of_run

    from s11_fastai.runs.weights import round_to_float16, write_weights

    classifier, images = of_run(args)
    round_to_float16(classifier)
    claim = claim_of(classifier, images)
    write_weights(args.weights, classifier, claim)
    say(images.describe())
    say(in_words(claim))
    say(f"the weights are in {args.weights}, as float16, with that claim")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="publish.py", description=__doc__)
    add = parser.add_argument
    add("run", type=path_flag, help="the folder of a finished run")
    add("folder", type=path_flag, help="a new folder, for its records and pictures")
    add("--records-only", action="store_true", help="leave its pictures out")
    add("--weights", type=path_flag, metavar="FILE", help="a new file, for its weights")
    add("--data", help="where the images are now, if they have moved")
    add("--device", help="cpu, cuda or mps (default: a GPU where there is one)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
