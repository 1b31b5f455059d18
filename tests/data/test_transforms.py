import copy

import numpy as np
import pytest
import torch
from fastai.vision.core import TensorImage
from scipy.stats import chi2_contingency, chisquare

from s11_fastai.data.per_image import PerImage, albumentations_default
from s11_fastai.data.transforms import (
    Cutout,
    Draws,
    PadCropFlip,
    cutout_,
    draw,
    epoch_order,
    pad_crop_flip,
)
from s11_fastai.errors import S11Error


def one_draw(top, left, flip) -> Draws:
    return Draws(*(np.array([v]) for v in (top, left, flip, 0, 0)))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (4, 4), (8, 8), (1, 7), (8, 0)])
def test_pad_crop_flip_is_numpys_pad_slice_and_mirror(rng, top, left, flip):
    image = rng.integers(1, 256, (1, 32, 32, 3), dtype=np.uint8)
    before = image.copy()
    expected = np.pad(image[0], ((4, 4), (4, 4), (0, 0)))[top : top + 32, left : left + 32]
    expected = expected[:, ::-1] if flip else expected
    np.testing.assert_array_equal(pad_crop_flip(image, one_draw(top, left, flip))[0], expected)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("fill", [0.0, torch.tensor([0.1, 0.2, 0.3])[:, None, None]])
def test_cutout_fills_each_images_own_square_in_place_and_nothing_else(memory_format, fill):
    images = torch.rand(3, 3, 32, 32).contiguous(memory_format=memory_format)
    expected = images.clone()
    holes = torch.tensor([[0, 0], [24, 24], [5, 17]])
    for i, (top, left) in enumerate(holes.tolist()):
        expected[i, :, top : top + 8, left : left + 8] = fill
    assert cutout_(images, holes, 8, fill) is images
    assert torch.equal(images, expected)


def test_cutout_is_a_batch_transform_of_the_training_part_alone():
    images = TensorImage(torch.ones(2, 3, 32, 32))
    images.holes = torch.tensor([[0, 0], [3, 3]])
    assert torch.equal(Cutout(8)(images.clone(), split_idx=1), images)
    assert (Cutout(8)(images, split_idx=0) == 0).sum() == 2 * 3 * 64


def test_draws_follow_from_seed_and_epoch_alone():
    first = draw(100, 1, 2)
    np.random.default_rng().random()
    draw.cache_clear()
    for a, b in zip(first, draw(100, 1, 2), strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (draw(100, 1, 3), draw(100, 2, 2)):
        assert (first.top != other.top).any()
    assert sorted(epoch_order(50, 0, 0)) == list(range(50))
    assert (epoch_order(50, 0, 0) != epoch_order(50, 0, 1)).any()


def test_every_offset_flip_and_hole_is_equally_likely():
    draws = draw(60_000, 0, 0)
    for column, n in zip(draws, (9, 9, 2, 25, 25), strict=True):
        counts = np.bincount(column.astype(int), minlength=n)
        assert len(counts) == n
        assert chisquare(counts).pvalue > 1e-4


def parameters_of(shown: np.ndarray, fill: int) -> np.ndarray:
    """Offset, flip and hole of shown copies of `marked()`: columns top, left, flip, hole y, x."""
    found = []
    for image in shown:
        hole = np.argwhere((image == fill).all(-1))
        # The pixels tell their own place: red is the row, green the column, both plus 1.
        y, x = next((y, x) for y, x in np.argwhere(image[..., 2] == 7) if 1 <= x < 31)
        flip = next(
            image[y, x + d, 1] < image[y, x, 1] if d > 0 else image[y, x + d, 1] > image[y, x, 1]
            for y, x in np.argwhere(image[..., 2] == 7)
            for d in (1, -1)
            if 0 <= x + d < 32 and image[y, x + d, 2] == 7
        )
        row, column = image[y, x, 0] - 1, image[y, x, 1] - 1
        left = column - (31 - x if flip else x) + 4
        found.append((int(row) - y + 4, left, flip, *hole.min(0)))
    return np.array(found, dtype=int)


def marked() -> np.ndarray:
    rows, columns = np.mgrid[:32, :32]
    return np.stack([rows + 1, columns + 1, np.full((32, 32), 7)], axis=-1).astype(np.uint8)


def test_the_albumentations_pipeline_draws_from_the_same_distribution():
    n, fill = 4_000, 200
    images, indices = np.repeat(marked()[None], n, axis=0), np.arange(n)
    ours = PadCropFlip(images, seed=1)(indices, epoch=0)
    holes = ours.holes
    cutout_(ours, holes, 8, fill)
    theirs = PerImage(images, 1, albumentations_default((fill,) * 3))(indices, epoch=0)
    found = [parameters_of(b.permute(0, 2, 3, 1).numpy(), fill) for b in (ours, theirs)]
    np.testing.assert_array_equal(found[0][:, 0], draw(n, 1, 0).top)
    np.testing.assert_array_equal(found[0][:, 1], draw(n, 1, 0).left)
    np.testing.assert_array_equal(found[0][:, 2], draw(n, 1, 0).flip)
    np.testing.assert_array_equal(found[0][:, 3:], holes)
    for column, n_values in enumerate((9, 9, 2, 25, 25)):
        table = [np.bincount(f[:, column], minlength=n_values) for f in found]
        assert np.shape(table) == (2, n_values)
        assert chi2_contingency(table).pvalue > 1e-4


def test_albumentations_is_stateless_and_leaves_the_callers_pipeline(rng):
    images = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    pipeline = albumentations_default()
    before = copy.deepcopy(pipeline.to_dict())
    augment = PerImage(images, 3, pipeline)
    whole = augment(np.arange(6), epoch=1)
    parts = [augment(np.array([i]), epoch=1) for i in (5, 4, 3, 2, 1, 0)]
    assert torch.equal(whole, torch.cat(parts[::-1]))
    assert not torch.equal(whole, augment(np.arange(6), epoch=2))
    assert pipeline.to_dict() == before


def test_an_albumentations_pipeline_must_give_what_it_gets(images):
    import albumentations as A

    with pytest.raises(S11Error, match="leave out Normalize"):
        PerImage(images.train.images, 0, A.Compose([A.Normalize()]))(np.array([0]), 0)
