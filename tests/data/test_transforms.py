import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import IndexSplitter, IntToFloatTensor, Normalize
from fastai.vision.core import TensorImage
from fastai.vision.data import ImageBlock
from scipy.stats import chi2_contingency, chisquare

from s11_fastai import dls_from_arrays, get_dls
from s11_fastai.data.per_image import PerImage, albumentations_default
from s11_fastai.data.transforms import (
    AugmentParams,
    Cutout,
    Holes,
    NormalizeBytes,
    PadCropFlip,
    PaddedImages,
    cutout_,
    epoch_order,
    pad_crop_flip,
    sample_params,
)
from s11_fastai.errors import S11Error
from s11_fastai.sources import ImageSet, Split


def params_of(top, left, flip) -> AugmentParams:
    return AugmentParams(*(np.array([v]) for v in (top, left, flip, 0, 0)))


def image_set(train: np.ndarray) -> ImageSet:
    """Training images alone, so that their indices are their places."""
    parts = (Split(x, np.zeros(len(x), int)) for x in (train, train[:0]))
    return ImageSet("few", ("a",), *parts, "")


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("pad", "top", "left"), [(4, 0, 0), (4, 8, 8), (4, 1, 7), (2, 4, 0), (0, 0, 0)]
)
@pytest.mark.parametrize("shape", [(32, 32, 3), (48, 48, 3), (20, 30, 3)])
def test_pad_crop_flip_is_numpys_pad_slice_and_mirror(rng, shape, pad, top, left, flip):
    image, (height, width, _) = rng.integers(1, 256, (1, *shape), dtype=np.uint8), shape
    before = image.copy()
    padded = np.pad(image[0], ((pad, pad), (pad, pad), (0, 0)))
    expected = padded[top : top + height, left : left + width]
    expected = expected[:, ::-1] if flip else expected
    cropped = pad_crop_flip(image, params_of(top, left, flip), pad)
    np.testing.assert_array_equal(cropped[0], expected)
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


def test_without_flip_nothing_is_mirrored_and_the_rest_is_the_same(images):
    with_flip, without = sample_params(99, 1, 2), sample_params(99, 1, 2, flip=False)
    assert with_flip.flip.any()
    assert not without.flip.any()
    for ours, theirs in zip(without._replace(flip=0), with_flip._replace(flip=0), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    indices = 24 + np.arange(40)  # the evaluated images come first
    plain = PaddedImages(images, 3, PadCropFlip(pad=0, hole=0, flip=False))(indices, epoch=0)
    np.testing.assert_array_equal(plain.permute(0, 2, 3, 1).numpy(), images.train.images)
    pipeline = albumentations_default(flip=False)
    assert "HorizontalFlip" not in {type(t).__name__ for t in pipeline}
    assert "HorizontalFlip" in {type(t).__name__ for t in albumentations_default()}


@pytest.mark.parametrize("mirror", [True, False])
def test_the_default_mirrors_only_images_that_may_be(images, mirror):
    dls = get_dls(replace(images, mirror=mirror), 16, device="cpu")
    assert dls.train.augment.how == PadCropFlip(flip=mirror)


@pytest.mark.parametrize(("side", "hole"), [(1, 0), (8, 4), (15, 7), (16, 8), (64, 8)])
def test_the_default_leaves_something_of_images_of_any_size(side, hole):
    pixels = np.full((4, side, side, 3), 200, np.uint8)
    dls = dls_from_arrays(pixels, [0, 1, 0, 1], pixels, [0, 1, 0, 1], bs=4, device="cpu")
    assert dls.train.augment.how.hole == hole
    assert dls.one_batch()[0].shape == (4, 3, side, side)
    with pytest.raises(S11Error, match=f"does not fit into images of {side}x{side}"):
        Cutout(side)(TensorImage(torch.ones(2, 3, side, side)), split_idx=0)


def holes_in(x: torch.Tensor) -> list[tuple[int, ...]]:
    """Top, left, height and width of what is 0 in each image."""
    found = []
    for image in (x.as_subclass(torch.Tensor) == 0).all(1):
        rows, columns = image.any(1).nonzero(), image.any(0).nonzero()
        assert image.sum() == len(rows) * len(columns)
        found.append((int(rows.min()), int(columns.min()), len(rows), len(columns)))
    return found


def test_cutout_fills_the_holes_that_a_batch_brings_and_takes_them_off():
    images = TensorImage(torch.ones(2, 3, 32, 32))
    images.holes = Holes(torch.tensor([[0, 0], [3, 5]]), 8, (32, 32))
    assert torch.equal(Cutout()(images.clone(), split_idx=1), images)
    cut = Cutout()(images, split_idx=0)
    assert holes_in(cut) == [(0, 0, 8, 8), (3, 5, 8, 8)]
    assert not hasattr(cut, "holes")


@pytest.mark.parametrize("brought", [None, (2, 8, (32, 32)), (40, 4, (32, 32)), (40, 8, (20, 20))])
def test_cutout_samples_for_itself_where_no_holes_or_no_fitting_ones_come(brought):
    images = TensorImage(torch.ones(40, 3, 32, 32))
    if brought:
        n, size, shape = brought
        images.holes = Holes(torch.full((n, 2), 31), size, shape)
    torch.manual_seed(0)
    found = holes_in(Cutout(size=8)(images, split_idx=0))
    assert {hole[2:] for hole in found} == {(8, 8)}
    assert len(set(found)) > 30


def test_cutout_is_a_batch_transform_of_anybodys_datablock(rng):
    pixels = rng.integers(1, 256, (20, 24, 48, 3), dtype=np.uint8)
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=lambda _: list(range(20)),
        splitter=IndexSplitter(range(10, 20)),
        get_x=lambda i: pixels[i],
        get_y=lambda i: i % 2,
        batch_tfms=[Normalize.from_stats([0.5] * 3, [0.2] * 3, cuda=False), Cutout(size=12)],
    )
    dls = block.dataloaders(None, bs=10, device="cpu")
    assert {hole[2:] for hole in holes_in(dls.train.one_batch()[0])} == {(12, 12)}
    assert (dls.valid.one_batch()[0] != 0).any(1).all()
    block.batch_tfms = [IntToFloatTensor(), Cutout(size=25)]
    with pytest.raises(S11Error, match="fit into images of 24x48"):
        block.dataloaders(None, bs=10, device="cpu").train.one_batch()


def test_bytes_of_any_size_are_normalised_as_fastai_does_in_two_steps(rng):
    own = NormalizeBytes([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    for side in (5, 32, 48):
        x = torch.from_numpy(rng.integers(0, 256, (2, 3, side, side + 1), dtype=np.uint8))
        halves = IntToFloatTensor()(TensorImage(x.clone()))
        expected = Normalize.from_stats([0.5, 0.4, 0.3], [0.2, 0.3, 0.4], cuda=False)(halves)
        for given in (TensorImage(x), halves):
            torch.testing.assert_close(own(given), expected, rtol=0, atol=1e-6)


def test_statistics_that_are_set_later_count_in_both_directions(rng):
    own = NormalizeBytes([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    x = TensorImage(torch.from_numpy(rng.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)))
    before = own(x.clone())
    own.mean, own.std = own.mean.clone(), own.std.clone()  # as on another device
    assert torch.equal(own(x.clone()), before)
    assert own.statistics == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    other = Normalize.from_stats([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], cuda=False)
    own.mean, own.std = other.mean, other.std
    expected = other(IntToFloatTensor()(x.clone()))
    for each in (own, pickle.loads(pickle.dumps(own))):
        torch.testing.assert_close(each(x.clone()), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(each.decode(each(x.clone())), x / 255, rtol=0, atol=1e-6)
        assert each.statistics[1] == pytest.approx((0.4, 0.5, 0.6))


def test_parameters_follow_from_seed_and_epoch_and_key_alone():
    first = sample_params(100, 1, 2)
    np.random.default_rng().random()
    for a, b in zip(first, sample_params(100, 1, 2), strict=True):
        np.testing.assert_array_equal(a, b)
    for other in ((1, 3), (2, 2), (1, 2, (0,)), (1, 2, (0, 0))):
        assert (first.top != sample_params(100, *other).top).any()
    assert sorted(epoch_order(50, 0, 0)) == list(range(50))
    for other in ((0, 1), (1, 0), (0, 0, (0,))):
        assert (epoch_order(50, 0, 0) != epoch_order(50, *other)).any()


def test_every_offset_flip_and_hole_is_equally_likely():
    params = sample_params(60_000, 0, 0, shape=(32, 20), pad=4, hole=8)
    for column, n in zip(params, (9, 9, 2, 25, 13), strict=True):
        counts = np.bincount(column.astype(int), minlength=n)
        assert len(counts) == n
        assert chisquare(counts).pvalue > 1e-4


def test_with_a_key_any_image_is_sampled_at_its_place_in_the_batch(images):
    augment = PaddedImages(images, 3, PadCropFlip())
    indices = np.array([24, 24, 0, 63])  # those below 24 are evaluated ones
    batch, params = augment(indices, 1, key=(7,)), sample_params(4, 3, 1, (7,))
    expected = pad_crop_flip(images.pixels_of(indices), params)
    np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), expected)
    assert torch.equal(batch.holes.corners, params.holes)
    per_image = PerImage(images, 3, albumentations_default())
    twice = per_image(indices, 1, key=(7,))
    assert torch.equal(twice, per_image(indices, 1, key=(7,)))
    assert not torch.equal(twice[0], twice[1])


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
    images = image_set(images)
    ours = PaddedImages(images, 1, PadCropFlip())(indices, epoch=0)
    holes = ours.holes.corners
    cutout_(ours, holes, 8, fill)
    theirs = PerImage(images, 1, albumentations_default((fill,) * 3))(indices, epoch=0)
    found = [parameters_of(b.permute(0, 2, 3, 1).numpy(), fill) for b in (ours, theirs)]
    np.testing.assert_array_equal(found[0][:, 0], sample_params(n, 1, 0).top)
    np.testing.assert_array_equal(found[0][:, 1], sample_params(n, 1, 0).left)
    np.testing.assert_array_equal(found[0][:, 2], sample_params(n, 1, 0).flip)
    np.testing.assert_array_equal(found[0][:, 3:], holes)
    for column, n_values in enumerate((9, 9, 2, 25, 25)):
        table = [np.bincount(f[:, column], minlength=n_values) for f in found]
        assert np.shape(table) == (2, n_values)
        assert chi2_contingency(table).pvalue > 1e-4


def test_albumentations_is_stateless_and_leaves_the_callers_pipeline(rng):
    images = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    pipeline = albumentations_default()
    before = copy.deepcopy(pipeline.to_dict())
    augment = PerImage(image_set(images), 3, pipeline)
    whole = augment(np.arange(6), epoch=1)
    parts = [augment(np.array([i]), epoch=1) for i in (5, 4, 3, 2, 1, 0)]
    assert torch.equal(whole, torch.cat(parts[::-1]))
    assert not torch.equal(whole, augment(np.arange(6), epoch=2))
    assert pipeline.to_dict() == before


def test_cutout_cuts_a_square_in_an_item_too():
    torch.manual_seed(0)
    item = TensorImage(torch.full((3, 20, 30), 7, dtype=torch.uint8))
    cut = Cutout(6, fill=1)(item.clone(), split_idx=0)
    assert type(cut) is TensorImage
    assert cut.shape == item.shape
    assert (cut != item).sum() == 3 * 6 * 6
    assert (cut == 1).all(0).sum() == 6 * 6
