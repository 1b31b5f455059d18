"""What trained weights see in pictures: the most probable classes of each.

python experiments/predict.py --weights model.safetensors picture.png another.jpg
"""

from __future__ import annotations

import argparse

from s11_fastai.cli import Parser, command_line, path_flag
from s11_fastai.streams import one_line, say

SHOWN = 3


def main(argv: list[str] | None = None) -> None:
    """Print a line for each picture that the flags name."""
    with command_line(__file__):
        predict(parse(argv))


def predict(args: argparse.Namespace) -> None:
    """Look at all pictures first: one that cannot be read is told before anything is printed."""
    import numpy as np

    from s11_fastai.environment import pick_device
    from s11_fastai.runs.weights import read_weights
    from s11_fastai.sources.picture import read_picture

    classifier = read_weights(args.weights, pick_device(args.device))
    shape = classifier.side, classifier.side
    pixels = np.stack([read_picture(path, shape) for path in args.pictures])
    probabilities = np.exp(classifier.log_probabilities(pixels))
    for path, own in zip(args.pictures, probabilities, strict=True):
        best = np.argsort(-own, kind="stable")[:SHOWN]
        named = ", ".join(f"{classifier.classes[i]} {own[i]:.1%}" for i in best)
        say(one_line(f"{path}: {named}"))


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="predict.py", description=__doc__)
    add = parser.add_argument
    add("pictures", type=path_flag, nargs="+", help="PNG, JPEG, WebP, GIF, BMP or TIFF of any size")
    add("--weights", type=path_flag, required=True, help="a model.safetensors")
    parser.add_device()
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
