"""The plain value that every later stage starts from."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from s11_fastai.errors import S11Error

SIDE = 32


class Split(NamedTuple):
    """Images, uint8, shape (N, 32, 32, 3), RGB; and labels, int64, shape (N,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Training images, the images that are evaluated, and what is known of both.

    `valid` is the test part, or held-out training images: `evaluated_on` says "test" or
    "held-out". `fingerprint` is that of the data as it was loaded, `name` is how figures call it.
    `mirror` says whether an image keeps its meaning when left and right are exchanged.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    valid: Split
    fingerprint: str
    evaluated_on: str = "test"
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

    def pixels_of(self, indices: np.ndarray) -> np.ndarray:
        """The images, uint8 (n, 32, 32, 3), of indices (n,) that count through the training part
        and then through the evaluated one."""
        return _from_both(self.train.images, self.valid.images, indices)

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """The labels, int64 (n,), of the same kind of indices."""
        return _from_both(self.train.labels, self.valid.labels, indices)

    def hold_out(self, n: int) -> "ImageSet":
        """Take `n` training images, stratified and always the same, as the part that is evaluated.

        The test images are not in what comes back. Raises S11Error where `n` leaves a class
        without an image on either side.
        """
        from sklearn.model_selection import train_test_split

        total, n_classes = len(self.train.labels), len(self.classes)
        if not n_classes <= n <= total - n_classes:
            raise S11Error(
                f"cannot hold out {n:,} of {total:,} training images: "
                f"choose a number from {n_classes:,} to {total - n_classes:,}"
            )
        try:
            kept, held = train_test_split(
                np.arange(total), test_size=n, random_state=0, stratify=self.train.labels
            )
        except ValueError as error:
            raise S11Error(f"cannot hold out {n:,} images of every class: {error}") from error
        for side in (kept, held):
            without = set(range(n_classes)) - set(self.train.labels[side].tolist())
            if without:
                names = ", ".join(self.classes[c] for c in sorted(without))
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


def fingerprint(classes: tuple[str, ...], train: Split, test: Split) -> str:
    """SHA-256 of class names, pixels and labels, in the order in which they are kept."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for array in (*train, *test):
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _take(part: Split, indices: np.ndarray) -> Split:
    return Split(part.images[indices], part.labels[indices])


def _from_both(train: np.ndarray, valid: np.ndarray, indices: np.ndarray) -> np.ndarray:
    in_valid = indices >= len(train)
    if not in_valid.any():
        return train[indices]
    out = np.empty((len(indices), *train.shape[1:]), train.dtype)
    out[~in_valid] = train[indices[~in_valid]]
    out[in_valid] = valid[indices[in_valid] - len(train)]
    return out
