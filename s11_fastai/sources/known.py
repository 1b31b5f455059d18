"""Copies of CIFAR-10 that are known by their pixels."""

import numpy as np

from s11_fastai.sources.imageset import Split

# By their fingerprint.
_COPIES = {
    "f4933fed79460c2f4fb1a720c7accb12ae74d341c85f86d2da2fdc0db151d78a": "CIFAR-10, JPEG q75 copy",
}
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
N_TRAIN, N_TEST = 5_000, 1_000  # of each class
# Of red, green and blue of all training images: the sum, and the sum of squares. They follow from
# the mean and standard deviation that are published with all digits, and do not depend on the
# order of the images, which is another in each copy.
SUMS = (
    (6_415_714_204, 1_007_102_432_534),
    (6_295_060_180, 971_356_520_230),
    (5_829_907_619, 891_641_299_129),
)


def known_name(classes: tuple[str, ...], train: Split, test: Split, mark: str) -> str:
    """The name of the images of this fingerprint, or "" for a stranger's."""
    return _COPIES.get(mark) or ("CIFAR-10" if _is_original(classes, train, test) else "")


def _is_original(classes: tuple[str, ...], train: Split, test: Split) -> bool:
    """Whether the training images are those that were published, and the test images as many."""
    counts = [np.bincount(part.labels, minlength=len(classes)) for part in (train, test)]
    return (
        classes == CLASSES
        and (counts[0] == N_TRAIN).all()
        and (counts[1] == N_TEST).all()
        and sums_of(train.images) == SUMS
    )


def sums_of(images: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Of uint8 (n, H, W, 3): of each channel the sum, and the sum of squares."""
    counts = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), 1_000):
        for channel in range(3):
            values = images[start : start + 1_000, ..., channel].ravel()
            counts[channel] += np.bincount(values, minlength=256)
    value = np.arange(256)
    return tuple((int(each @ value), int(each @ value**2)) for each in counts)
