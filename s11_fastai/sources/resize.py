"""Images of other shapes, brought to one side, and a line that says so."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from PIL import Image

from s11_fastai.sources.imageset import ImageSet, Split, fingerprint
from s11_fastai.sources.picture import cut_and_resize

_NAMED = 3  # sizes in the line


def resized(images: ImageSet, side: int) -> ImageSet:
    """The images at `side` x `side`; the same where they are so already."""
    if images.shape == (side, side):
        return images
    train, valid = (
        Split(_resize(part.images, side), part.labels) for part in (images.train, images.valid)
    )
    height, width = images.shape
    n = len(train.labels) + len(valid.labels)
    return replace(
        images,
        train=train,
        valid=valid,
        fingerprint=fingerprint(images.classes, train, valid),
        notes=(*images.notes, resize_note({(width, height): n}, n, side)),
    )


def resize_note(sizes: Mapping[tuple[int, int], int], total: int, side: int) -> str:
    """A line on images that are resized: how many there are of each (width, height)."""
    counts = Counter(sizes).most_common()
    named = [f"{n:,} of {width}x{height}" for (width, height), n in counts[:_NAMED]]
    if rest := counts[_NAMED:]:
        named.append(f"{sum(n for _, n in rest):,} of {len(rest):,} other sizes")
    n = sum(sizes.values())
    verb = "is" if n == 1 else "are"
    how = f"cut to a square and resized to {side}x{side}: {', '.join(named)}"
    return f"{n:,} of {total:,} images {verb} {how}"


def _resize(images: np.ndarray, side: int) -> np.ndarray:
    out = np.empty((len(images), side, side, 3), np.uint8)
    for i, pixels in enumerate(images):
        out[i] = cut_and_resize(Image.fromarray(pixels), (side, side))
    return out
