"""The accuracy and loss of trained weights on the test images, from a file or from a run.

    python experiments/evaluate.py --weights model.safetensors --data path/to/cifar10.tgz
    python experiments/evaluate.py --weights model.safetensors --data photos
    python experiments/evaluate.py runs/full

With --weights, images without a test part, such as photos/cat/ and photos/dog/, are all evaluated.

Of a run that was evaluated on held-out images, this is the accuracy on the test images: to be
looked at once, when all choices have been made.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from s11_fastai.cli import Parser, command_line, path_flag
from s11_fastai.errors import S11Error
from s11_fastai.streams import say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from s11_fastai.runs.weights import Classifier
    from s11_fastai.sources import ImageSet


def main(argv: list[str] | None = None) -> None:
    """Evaluate what the flags name, and say what came of it."""
    with command_line(__file__):
        evaluate(parse(argv))


def evaluate(args: argparse.Namespace) -> None:
    """One pass over the test images."""
    classifier, images = of_run(args) if args.run else of_file(args)
    found = claim_of(classifier, images)
    say("\n".join([images.describe(), *images.notes]))
    say(in_words(found))
    claim = classifier.claim or {}
    if "accuracy" in claim:
        same = "the same" if claim["accuracy"] == found["accuracy"] else "not the same"
        others = claim.get("data_fingerprint") != found["data_fingerprint"]
        say(f"its file claims {claim['accuracy']:.2%}: {'of other images' if others else same}")


def of_run(args: argparse.Namespace) -> tuple[Classifier, ImageSet]:
    """The final network of a finished run, and all images that it came from."""
    from s11_fastai import load_run
    from s11_fastai.runs.records import read_records
    from s11_fastai.runs.weights import Classifier
    from s11_fastai.runs.whole import WEIGHTS

    records = read_records(args.run)
    if not records.results:
        raise S11Error(f"{args.run} is not finished: finish the run first")
    data, holdout = args.data or records.settings.data, records.settings.holdout
    learn = load_run(args.run, data=data, device=args.device)
    if not holdout:
        return Classifier.of(learn), learn.dls.valid.images
    own = records.results["final_accuracy"]
    say(f"the run's own figure, of {holdout:,} held-out images: accuracy {own:.2%}")
    weights = args.run / WEIGHTS["final"]
    return Classifier.of(learn), with_test(data, records.settings.resize, weights)


def of_file(args: argparse.Namespace) -> tuple[Classifier, ImageSet]:
    """The network in a file, and images of its classes, or of some of them."""
    from s11_fastai.environment import pick_device
    from s11_fastai.runs.weights import read_weights
    from s11_fastai.sources import load_all

    classifier = read_weights(args.weights, pick_device(args.device))
    images = load_all(args.data, size=classifier.side, needs_test=False)
    if not len(images.valid.labels):
        images = images.all_evaluated()
    return classifier, images.labelled_by(classifier.classes)


def with_test(data: str | None, side: int, weights: Path) -> ImageSet:
    """The images at `data`, `side` pixels a side; raises S11Error where none are for the test.

    A run opens with its own images alone, its weights with any of their classes.
    """
    from s11_fastai.sources import load_all

    images = load_all(data, size=side, needs_test=False)
    if not len(images.valid.labels):
        raise S11Error(
            f"{images.name} has no test images: run evaluate.py with `weights` {weights} and "
            "`data`, other images of the same classes"
        )
    return images


def claim_of(classifier: Classifier, images: ImageSet) -> dict:
    """Accuracy and loss on the test images, and which images these are."""
    predictions = classifier.evaluate(images.valid)
    return {
        "accuracy": float((predictions.classes == predictions.labels).mean()),
        "loss": float(predictions.losses.mean()),
        "data": images.name,
        "data_fingerprint": images.fingerprint,
    }


def in_words(claim: Mapping[str, Any]) -> str:
    """The line that says what was found."""
    return (
        f"accuracy {claim['accuracy']:.2%} of the test images, "
        f"loss {claim['loss']:.4f} nats (without label smoothing)"
    )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags; raises S11Error where they name no weights, or two."""
    parser = Parser(prog="evaluate.py", description=__doc__)
    add = parser.add_argument
    add("run", type=path_flag, nargs="?", help="the folder of a finished run")
    add("--weights", type=path_flag, help="or a file of weights")
    add("--data", help="the images, as run.py's --data (default: the run's, or CIFAR-10)")
    parser.add_device()
    args = parser.parse_args(argv)
    if (args.run is None) == (args.weights is None):
        raise S11Error("give the folder of a run, or --weights and a file")
    return args


if __name__ == "__main__":
    main()
