"""Section "input": batches of augmented images, without a network."""

import tempfile
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from benchmark.peers import (
    Copies,
    Crops,
    albumentations_batches,
    endless,
    fastai_dls,
    torchvision_batches,
)
from benchmark.timing import PROJECT, Table, one_core, round_robin, rows_of, seconds_of
from s11_fastai import get_dls
from s11_fastai.sources import ImageSet

N_PICTURES = 4096
_SAYS = (
    "Batches of {bs} images, padded, cropped, flipped, normalised and with a hole cut in each, "
    "{where}, without a network. No way to make them is faster than the first two rows, which each "
    "do a part of it: pick the crops out of memory; copy one batch as it reaches the network."
)


class Input(NamedTuple):
    """Where batches come from, and how many of them are timed in one turn."""

    batches: Iterable[tuple]
    n: int


def measure_input(
    images: ImageSet, bs: int, workers: int, rounds: int, device: torch.device
) -> Table:
    """The rate of each side; on one core unless there are workers."""
    with tempfile.TemporaryDirectory() as scratch, nullcontext() if workers else one_core():
        inputs = floors(images, bs, device) | pipelines(images, bs, Path(scratch), workers, device)
        sides = {
            name: partial(seconds_an_image, each, max(1, workers), device)
            for name, each in inputs.items()
        }
        seconds = round_robin(sides, rounds)
    units = [lambda s: 1 / s, lambda s: 1000 * bs * s]
    where = f"with {workers} workers" if workers else "on one core"
    return Table(
        section="input",
        units=("images/s", "ms a batch"),
        rows=rows_of(seconds, units, PROJECT),
        says=_SAYS.format(bs=bs, where=where if device.type == "cpu" else f"{where} and the GPU"),
    )


def floors(images: ImageSet, bs: int, device: torch.device) -> dict[str, Input]:
    """What no pipeline can be faster than."""
    return {
        "the crops alone, as bytes": Input(Crops(images, bs), 20),
        "a copy of one batch": Input(Copies(images, bs, device), 20),
    }


def pipelines(
    images: ImageSet, bs: int, folder: Path, workers: int, device: torch.device
) -> dict[str, Input]:
    """What gives the same augmented batches; `folder` is for the files of fastai's own way."""
    ours = get_dls(images, bs, device=device, num_workers=workers)
    stock = fastai_dls(images, N_PICTURES, folder, bs, device, num_workers=workers)
    pictures = torchvision_batches(images, N_PICTURES, bs, device, workers)
    arrays = albumentations_batches(images, bs, device, workers)
    return {
        PROJECT: Input(ours.train, 20),
        "fastai, as documented": Input(stock.train, 2),
        "torchvision v2 on PIL images": Input(pictures, 2),
        "Albumentations for each image": Input(arrays, 2),
    }


def seconds_an_image(source: Input, uncounted: int, device: torch.device) -> float:
    """The time of `source.n` batches of a pass that has begun, divided by their images.

    The pass is this turn's own: were it kept, workers would fill their queue while another side
    is measured. The `uncounted` first batches pay for its beginning.
    """
    batches = endless(source.batches)
    for _ in range(uncounted):
        next(batches)
    seen = 0

    def load() -> None:
        nonlocal seen
        for _ in range(source.n):
            seen += len(next(batches)[0])

    seconds = seconds_of(load, device)
    batches.close()
    return seconds / seen
