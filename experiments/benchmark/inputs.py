"""Section "input": batches of augmented images a second, without a network."""

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from benchmark.peers import albumentations_loader, fastai_dls, torchvision_loader
from benchmark.timing import PROJECT, Row, one_core, round_robin, rows_of
from s11_fastai import get_dls
from s11_fastai.data.transforms import PAD, SIDE, epoch_order, sample_params
from s11_fastai.sources import ImageSet

LIMIT = "the gather alone"
N_PICTURES = 4096


class Input(NamedTuple):
    """Where batches come from, and how many of them are timed in one turn."""

    batches: Iterable[tuple]
    n: int


def measure_input(images: ImageSet, bs: int, workers: int, rounds: int) -> list[Row]:
    """Images a second of each side; on one core unless there are workers."""
    with tempfile.TemporaryDirectory() as scratch, nullcontext() if workers else one_core():
        inputs = floors(images, bs) | pipelines(images, bs, Path(scratch), workers)
        sides = {
            name: partial(images_per_second, each, uncounted=max(1, workers))
            for name, each in inputs.items()
        }
        values = round_robin(sides, rounds)
    return rows_of("input", "images/s", values, LIMIT, lambda v: 1000 * bs / v, "ms a batch")


def floors(images: ImageSet, bs: int) -> dict[str, Input]:
    """What no pipeline can be faster than."""
    copies = Copies(bs)
    return {LIMIT: Input(Gather(images, bs), 20), "a copy of the output": Input(copies, 20)}


def pipelines(images: ImageSet, bs: int, folder: Path, workers: int) -> dict[str, Input]:
    """What gives the same augmented batches; `folder` is for the files of fastai's own way."""
    ours = get_dls(images, bs, device="cpu", num_workers=workers)
    stock = fastai_dls(images, N_PICTURES, folder, bs, num_workers=workers)
    pictures = torchvision_loader(images, N_PICTURES, bs, workers)
    arrays = albumentations_loader(images, bs, workers)
    return {
        PROJECT: Input(ours.train, 20),
        "fastai, as documented": Input(stock.train, 2),
        "torchvision v2 on PIL images": Input(pictures, 2),
        "Albumentations for each image": Input(arrays, 2),
    }


def images_per_second(source: Input, uncounted: int) -> float:
    """The rate of `source.n` batches of a pass that has begun.

    The pass is this turn's own: were it kept, workers would fill their queue while another side
    is measured. The `uncounted` first batches pay for its beginning.
    """
    batches = endless(source.batches)
    for _ in range(uncounted):
        next(batches)
    start = time.perf_counter()
    seen = sum(len(next(batches)[0]) for _ in range(source.n))
    seconds = time.perf_counter() - start
    batches.close()
    return seen / seconds


def endless(batches: Iterable[tuple]) -> Iterator[tuple]:
    """Pass after pass."""
    while True:
        yield from batches


class Gather:
    """Crops and flips as one copy from padded images, with draws that are ready; uint8."""

    def __init__(self, images: ImageSet, bs: int) -> None:
        pixels = images.train.images
        pad = ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0))
        padded = np.stack([np.pad(side, pad) for side in (pixels, pixels[:, :, ::-1])])
        n, height = padded.shape[1:3]
        rows = padded.reshape(2, n, height, -1)
        self.windows = sliding_window_view(rows, (SIDE, SIDE * 3), axis=(2, 3))[:, :, :, ::3]
        params, order = sample_params(n, seed=0, epoch=0), epoch_order(n, seed=0, epoch=0)
        chunks = [order[i : i + bs] for i in range(0, n, bs)]
        self.draws = [
            (params.flip[chunk].astype(int), chunk, params.top[chunk], params.left[chunk])
            for chunk in chunks
        ]

    def __iter__(self) -> Iterator[tuple[np.ndarray]]:
        for drawn in self.draws:
            yield (self.windows[drawn],)


class Copies:
    """Copies of a batch as it reaches the network."""

    def __init__(self, bs: int) -> None:
        self.batch = torch.zeros(bs, 3, SIDE, SIDE)

    def __iter__(self) -> Iterator[tuple[torch.Tensor]]:
        while True:
            yield (self.batch.clone(),)
