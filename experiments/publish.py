"""What of a finished run is published: its records and pictures, and its weights as float16.

    python experiments/publish.py runs/full published
    python experiments/publish.py runs/full published --records-only
    python experiments/publish.py runs/full published --weights full.safetensors

The weights are rounded to float16 and then evaluated on the test images; their file records the
result. Nothing that is there is overwritten.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from s11_fastai.cli import Parser, command_line, path_flag
from s11_fastai.errors import S11Error
from s11_fastai.streams import say

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
    with command_line(__file__):
        publish(parse(argv))


def publish(args: argparse.Namespace) -> None:
    """The weights, if they are asked for, then records and perhaps pictures into a new folder.

    Nothing is written before all of it has been read.
    """
    from s11_fastai.report.classes import read_record
    from s11_fastai.runs.records import read_records
    from s11_fastai.storage import Folder

    for place in (args.folder, args.weights):
        if place and place.exists():
            raise S11Error(f"{place} exists and is kept: give another name")
    records = read_records(args.run)
    if not records.results:
        raise S11Error(f"{args.run} is not finished: finish the run first")
    shown = read_record(args.run)
    if shown and shown.weights != "final":
        raise S11Error(
            f"{args.run} shows other weights than those after its last epoch, which are what is "
            "published: run interpret.py on it first"
        )
    # Of the settings, of the images only their file's name.
    data = records.settings.data
    config = records.config | {"data": data and Path(data).name}
    found = {name: path.read_bytes() for name in RECORDS if (path := args.run / name).exists()}
    pictures = {} if args.records_only else pictures_of(args.run / "figures")
    if args.weights:
        publish_weights(args)
    folder = Folder(args.folder)
    folder.write_json("config.json", config)
    for name, content in {**found, **pictures}.items():
        folder.write(name, content)
    say(f"{len(found) + 1} records and {len(pictures)} pictures are in {args.folder}")


def pictures_of(figures: Path) -> dict[str, bytes]:
    """The pictures that show what came of the run, those of its training images left out.

    They stay as they were drawn; those of many photographs, which are large, become smaller WebP.
    """
    from s11_fastai.report.pictures import PICTURES, Inputs

    found = {}
    for picture in PICTURES:
        path = figures / f"{picture.name}.png"
        if picture.source is Inputs or not path.exists():
            continue
        if path.stat().st_size <= MOST_BYTES:
            found[path.name] = path.read_bytes()
        else:
            found[f"{picture.name}.webp"] = small_webp(path)
    return found


def small_webp(path: Path) -> bytes:
    """A picture, SMALL pixels across; raises S11Error for a file that is none."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            picture = image.convert("RGB")
    except Exception as error:  # a damaged file can mean nearly anything
        raise S11Error(f"{path} cannot be read: run interpret.py, which draws it again") from error
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
    parser.add_device()
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
