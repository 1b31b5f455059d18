"""The handwritten digits inside scikit-learn: real images that need no network."""

import numpy as np
from PIL import Image

from s11_fastai.sources.imageset import SIDE, ImageSet, Split, fingerprint


def load_digits(smooth: bool = True) -> ImageSet:
    """1,797 digits, 8x8 enlarged to 32x32 RGB; of each class every fifth image is a test image.

    They are enlarged bicubically. Without `smooth` they are as version 0.1.0 had them: each pixel
    a block of 4x4, and taken to be images that may be mirrored. Source:
    `sklearn.datasets.load_digits`, the test part of UCI's optical digits.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    large = np.stack([np.array(Image.fromarray(g).resize((SIDE, SIDE), how)) for g in grey])
    images = np.repeat(large[..., None], 3, axis=3)
    labels = digits.target.astype(np.int64)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    train, test = Split(images[~is_test], labels[~is_test]), Split(images[is_test], labels[is_test])
    classes = tuple(map(str, digits.target_names))
    mark = fingerprint(classes, train, test)
    return ImageSet("digits", classes, train, test, mark, mirror=not smooth)
