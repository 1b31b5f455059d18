"""The same images and transforms as others document them: fastai, torchvision, Albumentations.

Each gives batches like those of `get_dls`: pad 4, random crop, flip, one 8x8 hole wholly inside,
drawn for each image; float32, normalised with the training images' statistics.
"""

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
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from s11_fastai.data.per_image import albumentations_default
from s11_fastai.data.transforms import HOLE, PAD, SIDE, channel_stats
from s11_fastai.sources import ImageSet, Split


def fastai_dls(images: ImageSet, n: int, folder: Path, bs: int, **kwargs) -> DataLoaders:
    """A DataBlock over PNG files: about `n` of the images, which it writes into `folder`."""
    _write_pngs(folder, "train", images.train, images.classes, n)
    _write_pngs(folder, "test", images.valid, images.classes, bs)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        splitter=GrandparentSplitter(train_name="train", valid_name="test"),
        get_y=parent_label,
        item_tfms=[CropPad(SIDE + 2 * PAD), RandomCrop(SIDE), FlipItem()],
        batch_tfms=[CutoutOfEach(), Normalize.from_stats(*channel_stats(images.train.images))],
    )
    return block.dataloaders(folder, bs=bs, device="cpu", **kwargs)


class CutoutOfEach(Transform):
    """A hole in each image of a batch; fastai's RandomErasing cuts one box out of all of them."""

    order, split_idx = 100, 0  # after Normalize, whose mean is 0

    def encodes(self, x: TensorImage) -> TensorImage:
        top, left = torch.randint(SIDE - HOLE + 1, (2, len(x), 1))
        pixels = torch.arange(SIDE)
        rows = (pixels >= top) & (pixels < top + HOLE)
        columns = (pixels >= left) & (pixels < left + HOLE)
        return x.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


def torchvision_loader(images: ImageSet, n: int, bs: int, workers: int = 0) -> DataLoader:
    """PIL images in memory, `n` of them, through torchvision's transforms one by one."""
    one = HOLE**2 / SIDE**2
    transform = v2.Compose(
        [
            v2.RandomCrop(SIDE, padding=PAD),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(*channel_stats(images.train.images)),
            v2.RandomErasing(p=1, scale=(one, one), ratio=(1, 1), value=0),
        ]
    )
    chosen = _spread(images.train, n)
    pictures = [Image.fromarray(pixels) for pixels in chosen.images]
    dataset = Pictures(pictures, chosen.labels, transform)
    return DataLoader(dataset, bs, shuffle=True, num_workers=workers)


def albumentations_loader(images: ImageSet, bs: int, workers: int = 0) -> DataLoader:
    """Arrays in memory through an Albumentations pipeline one by one."""
    mean, std = channel_stats(images.train.images)
    transform = A.Compose(
        [
            albumentations_default(fill=tuple(round(255 * m) for m in mean)),
            A.Normalize(mean, std),
            ToTensorV2(),
        ]
    )
    dataset = Arrays(*images.train, transform)
    return DataLoader(dataset, bs, shuffle=True, num_workers=workers)


class Pictures(Dataset):
    """PIL images and labels; `transform` takes a picture."""

    def __init__(self, pictures: list[Image.Image], labels: np.ndarray, transform: v2.Compose):
        self.pictures, self.labels, self.transform = pictures, labels, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.pictures[i]), int(self.labels[i])


class Arrays(Dataset):
    """Images (N, 32, 32, 3) and labels; `transform` is an Albumentations pipeline."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: A.Compose):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(image=self.images[i])["image"], int(self.labels[i])


def _write_pngs(folder: Path, name: str, part: Split, classes: tuple[str, ...], n: int) -> None:
    chosen = _spread(part, n)
    for i, (pixels, label) in enumerate(zip(chosen.images, chosen.labels, strict=True)):
        path = folder / name / classes[label] / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def _spread(part: Split, n: int) -> Split:
    """`n` images evenly from all of the part, which may be sorted by class."""
    indices = np.linspace(0, len(part.labels) - 1, min(n, len(part.labels))).astype(int)
    return Split(part.images[indices], part.labels[indices])
