"""What an item of a dataset is: the index of an image in memory, or any picture."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
from fastai.data.core import Datasets
from fastai.vision.core import PILImage
from fasttransform import Pipeline, Transform

from s11_fastai.errors import S11Error
from s11_fastai.sources import ImageSet
from s11_fastai.sources.picture import read_picture


class OfItem(Transform):
    """A transform of an item, which may be an index of one of `images`."""

    input_types = object  # fastai tells by it where a new item enters the pipeline

    def __init__(self, images: ImageSet) -> None:
        super().__init__()
        self.images = images

    def __call__(self, item: Any, **kwargs) -> Any:
        # A Transform is applied to each part of a tuple. A list gets whole to `encodes`, which
        # refuses it.
        return super().__call__(list(item) if isinstance(item, tuple) else item, **kwargs)


class Picture(OfItem):
    """An item as fastai's PILImage: an index's image, or what `read_picture` reads."""

    def encodes(self, item) -> PILImage:
        index = index_of(item, self.images)
        if index is None:
            return PILImage.create(read_picture(item, self.images.shape))
        return PILImage.create(self.images.pixels_of(index)[0])


class ClassName(OfItem):
    """The name of an item's class: an index's, or that of the nearest folder about a file which is
    called as a class."""

    def encodes(self, item) -> str:
        index, classes = index_of(item, self.images), self.images.classes
        if index is not None:
            return classes[self.images.labels_of(index)[0]]
        folders = Path(item).parents if isinstance(item, str | os.PathLike) else ()
        for name in (normalize("NFC", folder.name) for folder in folders):  # as classes are called
            if name in classes:
                return name
        raise S11Error(
            f"{item!r:.200} has no label: with_labels= takes indices, and files that lie in a "
            f"folder of their class ({', '.join(classes[:3])}...)"
        )


def index_of(item: object, images: ImageSet) -> np.ndarray | None:
    """The index that an item is, (1,), or None for what is no whole number.

    Raises S11Error for one that is out of range.
    """
    if isinstance(item, bool | np.bool_) or getattr(item, "ndim", 0) != 0:
        return None
    try:
        index = operator.index(item)  # type: ignore[arg-type]  # which says whether it is
    except TypeError:
        return None
    return images.checked(np.array([index]))


def has_pictures_of(dataset: Any, images: ImageSet) -> bool:
    """Whether its items, where they are whole numbers, are indices of these images."""
    if not isinstance(dataset, Datasets) or not dataset.tls:
        return False
    return any(isinstance(f, Picture) and f.images is images for f in dataset.tls[0].tfms.fs)


def forget_images(dataset: Datasets) -> Datasets:
    """The dataset, which has no items, with no images in its transforms either."""
    for each in dataset.tls:
        each.splits = [[] for _ in each.splits]  # the indices of what were its items
        kept = [_without_images(transform) for transform in each.tfms.fs]
        each.tfms = Pipeline(kept, split_idx=each.tfms.split_idx)
    return dataset


def _without_images(transform: Transform) -> Transform:
    if not isinstance(transform, OfItem):
        return transform
    return type(transform)(transform.images.without_images())
