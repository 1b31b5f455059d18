"""The same batches as others document them, and what no way of making them can beat.

fastai, torchvision and Albumentations each give batches like those of `get_dls`: pad 4, random
crop, flip, one 8x8 hole wholly inside, drawn for each image; float32, normalised with the training
images' statistics, on the device.
"""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import albumentations as A
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import GrandparentSplitter, Normalize, get_image_files, parent_label
from fastai.vision.augment import CropPad, FlipItem, RandomCrop
from fastai.vision.core import TensorImage
from fastai.vision.data import ImageBlock
from fasttransform import Transform
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from s11_fastai.data.per_image import albumentations_default
from s11_fastai.data.transforms import HOLE, PAD, channel_stats, epoch_order, sample_params
from s11_fastai.sources import ImageSet


def fastai_dls(
    images: ImageSet, n: int, folder: Path, bs: int, device: torch.device, **kwargs
) -> DataLoaders:
    """A DataBlock over PNG files: about `n` of the images, which it writes into `folder`."""
    side, stats = images.train.images.shape[1], channel_stats(images.train.images)
    on_cuda = device.type == "cuda"  # else the statistics would be on a GPU wherever there is one
    _write_pngs(folder / "train", *_spread(*images.train, n))
    _write_pngs(folder / "test", *_spread(*images.valid, bs))
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        splitter=GrandparentSplitter(train_name="train", valid_name="test"),
        get_y=parent_label,
        item_tfms=[CropPad(side + 2 * PAD), RandomCrop(side), FlipItem()],
        batch_tfms=[CutoutOfEach(), Normalize.from_stats(*stats, cuda=on_cuda)],
    )
    return block.dataloaders(folder, bs=bs, device=device, **kwargs)


class CutoutOfEach(Transform):
    """A hole in each image of a batch; fastai's RandomErasing cuts one box out of all of them."""

    order, split_idx = 100, 0  # after Normalize, whose mean is 0

    def encodes(self, x: TensorImage) -> TensorImage:
        side = x.shape[-1]
        top, left = torch.randint(side - HOLE + 1, (2, len(x), 1), device=x.device)
        pixels = torch.arange(side, device=x.device)
        rows = (pixels >= top) & (pixels < top + HOLE)
        columns = (pixels >= left) & (pixels < left + HOLE)
        return x.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


@dataclass(frozen=True)
class Loaded:
    """The batches of a DataLoader of PyTorch, on the device."""

    loader: DataLoader
    device: torch.device

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for x, y in self.loader:
            yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)


def torchvision_batches(
    images: ImageSet, n: int, bs: int, device: torch.device, workers: int = 0
) -> Loaded:
    """PIL images in memory, `n` of them, through torchvision's transforms one by one."""
    side = images.train.images.shape[1]
    one = HOLE**2 / side**2
    transform = v2.Compose(
        [
            v2.RandomCrop(side, padding=PAD),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(*channel_stats(images.train.images)),
            v2.RandomErasing(p=1, scale=(one, one), ratio=(1, 1), value=0),
        ]
    )
    pixels, labels = _spread(*images.train, n)
    pictures = [Image.fromarray(each) for each in pixels]
    return _loaded(Pictures(pictures, labels, transform), bs, device, workers)


def albumentations_batches(
    images: ImageSet, bs: int, device: torch.device, workers: int = 0
) -> Loaded:
    """Arrays in memory through an Albumentations pipeline one by one."""
    mean, std = channel_stats(images.train.images)
    transform = A.Compose(
        [
            albumentations_default(fill=tuple(round(255 * m) for m in mean)),
            A.Normalize(mean, std),
            ToTensorV2(),
        ]
    )
    return _loaded(Arrays(*images.train, transform), bs, device, workers)


class Pictures(Dataset):
    """PIL images and labels; `transform` takes a picture."""

    def __init__(self, pictures: list[Image.Image], labels: np.ndarray, transform: v2.Compose):
        self.pictures, self.labels, self.transform = pictures, labels, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.pictures[i]), int(self.labels[i])


class Arrays(Dataset):
    """Images (N, H, W, 3) and labels; `transform` is an Albumentations pipeline."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: A.Compose):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(image=self.images[i])["image"], int(self.labels[i])


class Crops:
    """Crops and flips as one copy out of padded images, with draws that are ready; uint8."""

    def __init__(self, images: ImageSet, bs: int) -> None:
        pixels = images.train.images
        n, side = pixels.shape[:2]
        pad = ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0))
        padded = np.stack([np.pad(each, pad) for each in (pixels, pixels[:, :, ::-1])])
        rows = padded.reshape(2, n, side + 2 * PAD, -1)
        self.windows = sliding_window_view(rows, (side, side * 3), axis=(2, 3))[:, :, :, ::3]
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
    """Copies of a batch as it reaches the network, on a GPU from pinned memory of the CPU."""

    def __init__(self, images: ImageSet, bs: int, device: torch.device) -> None:
        side = images.train.images.shape[1]
        self.batch = torch.zeros(bs, 3, side, side, pin_memory=device.type == "cuda")
        self.device = device

    def __iter__(self) -> Iterator[tuple[torch.Tensor]]:
        while True:
            yield (self.batch.to(self.device, non_blocking=True, copy=True),)


def endless(batches: Iterable[tuple]) -> Generator[tuple, None, None]:
    """Pass after pass."""
    while True:
        yield from batches


def _loaded(dataset: Dataset, bs: int, device: torch.device, workers: int) -> Loaded:
    pinned = device.type == "cuda"
    return Loaded(
        DataLoader(dataset, bs, shuffle=True, num_workers=workers, pin_memory=pinned), device
    )


def _write_pngs(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / f"{label:03}" / f"{i:05}.png"  # a class's name may be no folder's
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def _spread(images: np.ndarray, labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` images evenly from all of them, which may be sorted by class."""
    indices = np.linspace(0, len(labels) - 1, min(n, len(labels))).astype(int)
    return images[indices], labels[indices]
