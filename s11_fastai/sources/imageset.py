"""The plain value that every later stage starts from."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from s11_fastai.errors import S11Error
from s11_fastai.streams import few, is_printable

SIDE = 32
MAX_CLASSES, MAX_NAME = 1_000, 100


class Split(NamedTuple):
    """Images, uint8, shape (N, H, W, 3), RGB; and labels, int64, shape (N,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Training images, the images that are evaluated, and what is known of both.

    `valid` is the test part, or held-out training images: `evaluated_on` says "test" or
    "held-out". `fingerprint` is that of the data as it was loaded, `name` is how figures call it.
    `mirror` says whether an image keeps its meaning when left and right are exchanged.
    `notes` are lines on what was done to the files: which were resized, and which left out.

    An index counts through the evaluated images first and then through the training ones. So the
    place of an evaluated image, as predictions and mistakes have it, is also its index.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    valid: Split
    fingerprint: str
    evaluated_on: str = "test"
    notes: tuple[str, ...] = ()
    mirror: bool = True

    def describe(self) -> str:
        """One line: name, counts, classes, and the beginning of the fingerprint."""
        return (
            f"{self.name}: {len(self.train.labels):,} training and {len(self.valid.labels):,} "
            f"{self.evaluated_on} images of {len(self.classes)} classes, "
            f"{'' if self.mirror else 'never mirrored, '}fingerprint {self.fingerprint[:12]}"
        )

    def __repr__(self) -> str:
        return f"ImageSet({self.describe()})"

    def facts(self) -> dict:
        """What `env.json` keeps of the images."""
        return {
            "data": self.name,
            "data_fingerprint": self.fingerprint,
            "train_images": len(self.train.labels),
            f"{self.evaluated_on}_images": len(self.valid.labels),
            "classes": len(self.classes),
        }

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of every image."""
        return self.train.images.shape[1:3]

    def pixels_of(self, indices: np.ndarray) -> np.ndarray:
        """The images of some indices (n,): uint8 (n, H, W, 3)."""
        return _from_both(self.valid.images, self.train.images, indices)

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """The labels of some indices (n,): int64 (n,)."""
        return _from_both(self.valid.labels, self.train.labels, indices)

    def places_in_train(self, indices: np.ndarray) -> np.ndarray:
        """Where the images of some indices (n,) stand among the training images; below 0 where
        they are evaluated ones."""
        return indices - len(self.valid.labels)

    def checked(self, indices: np.ndarray) -> np.ndarray:
        """The indices; raises S11Error where one of them is that of no image."""
        n_valid, n = len(self.valid.labels), len(self.valid.labels) + len(self.train.labels)
        wrong = indices[(indices < 0) | (indices >= n)]
        if not len(wrong):
            return indices
        if not n:
            raise S11Error(
                f"no image {wrong[0]}: an exported Learner has no images; give a picture"
            )
        raise S11Error(
            f"no image {wrong[0]}: indices go from 0 to {n - 1:,}, the "
            f"{self.evaluated_on} images from 0 to {n_valid - 1:,} and then the training images"
        )

    def without_images(self) -> "ImageSet":
        """The classes and the images' shape alone: what may leave the house with a network."""
        train, valid = (
            Split(part.images[:0].copy(), part.labels[:0].copy())
            for part in (self.train, self.valid)
        )
        return ImageSet("", self.classes, train, valid, "", self.evaluated_on)

    def all_evaluated(self) -> "ImageSet":
        """All of them as the test part, for a network that was trained on others."""
        note = "all images are evaluated, as if the network had seen none of them"
        return replace(
            self, train=_take(self.train, slice(0)), valid=self.train, notes=(*self.notes, note)
        )

    def labelled_by(self, classes: tuple[str, ...]) -> "ImageSet":
        """The same images with labels that count through `classes`, of which its own are some.

        Raises S11Error where it has others.
        """
        if unknown := [name for name in self.classes if name not in classes]:
            raise S11Error(
                f"{self.name} has {few(unknown)}, which the weights do not know: give `data`, "
                f"images of {', '.join(classes):.80}"
            )
        place = np.array([classes.index(name) for name in self.classes])
        train, valid = (Split(p.images, place[p.labels]) for p in (self.train, self.valid))
        return replace(self, classes=classes, train=train, valid=valid)

    def hold_out(self, n: int) -> "ImageSet":
        """Take `n` training images, stratified and always the same, as the part that is evaluated.

        The test images are not in what comes back. Raises S11Error where `n` is no whole number or
        leaves a class without an image on either side.
        """
        from sklearn.model_selection import train_test_split

        if not isinstance(n, Integral):
            raise S11Error(f"`holdout` must be a whole number of images, not {n!r:.60}")
        total, n_classes = len(self.train.labels), len(self.classes)
        counts = np.bincount(self.train.labels, minlength=n_classes)
        if counts.min() < 2:
            rare = [name for name, count in zip(self.classes, counts, strict=True) if count < 2]
            raise S11Error(
                "nothing can be held out of a class that has fewer than two training images: "
                f"{few(rare)}; add some, or leave it out"
            )
        if not n_classes <= n <= total - n_classes:
            raise S11Error(
                f"cannot hold out {n:,} of {total:,} training images: "
                f"choose a number from {n_classes:,} to {total - n_classes:,}"
            )
        kept, held = train_test_split(
            np.arange(total), test_size=n, random_state=0, stratify=self.train.labels
        )
        for side in (kept, held):
            without = set(range(n_classes)) - set(self.train.labels[side].tolist())
            if without:
                names = few([self.classes[c] for c in sorted(without)])
                raise S11Error(
                    f"holding out {n:,} images leaves {names} without one on either side: "
                    "choose a number that is less extreme"
                )
        return replace(
            self,
            train=_take(self.train, np.sort(kept)),
            valid=_take(self.train, np.sort(held)),
            evaluated_on="held-out",
        )


def check_classes(names: Sequence[str], where: Path) -> None:
    """Raise S11Error where the images at `where` have classes that no picture could tell apart."""
    if len(names) == 1:
        raise S11Error(
            f"{where} has one class alone, {names[0]:.100}: give each class a folder of its own, "
            "two or more of them side by side"
        )
    if not 2 <= len(names) <= MAX_CLASSES:
        raise S11Error(f"{where} has {len(names):,} classes: it can be 2 to {MAX_CLASSES:,}")
    for name in names:
        if not (is_printable(name) and 1 <= len(name) <= MAX_NAME):
            raise S11Error(
                f"{where}: the class {name[:MAX_NAME]!a} is no printable text of 1 to {MAX_NAME} "
                "letters: rename it"
            )
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise S11Error(f"{where} has two classes that are called {twice}: rename one")


def fingerprint(classes: tuple[str, ...], train: Split, test: Split) -> str:
    """SHA-256 of class names, pixels and labels, in the order in which they are kept."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for array in (*train, *test):
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def channel_counts(images: np.ndarray) -> np.ndarray:
    """How often each value stands in each channel of uint8 (N, H, W, C): int64 (C, 256)."""
    counts = np.zeros((images.shape[-1], 256), np.int64)
    every = to_be_read(images)
    for start in range(0, len(images), 500):  # a part that the processor's cache holds
        pixels = every[start : start + 500].flatten(0, 2)
        for channel, own in zip(counts, pixels.T, strict=True):
            channel += torch.bincount(own.contiguous(), minlength=256).numpy()
    return counts


def to_be_read(images: np.ndarray) -> torch.Tensor:
    """The array as a tensor, without a copy; torch warns of one that must not be written."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(images)


def _take(part: Split, indices: np.ndarray | slice) -> Split:
    return Split(part.images[indices], part.labels[indices])


def _from_both(first: np.ndarray, second: np.ndarray, indices: np.ndarray) -> np.ndarray:
    in_second = indices >= len(first)
    if not in_second.any():
        return first[indices]
    if in_second.all():
        return second[indices - len(first)]
    out = np.empty((len(indices), *first.shape[1:]), first.dtype)
    out[~in_second] = first[indices[~in_second]]
    out[in_second] = second[indices[in_second] - len(first)]
    return out
