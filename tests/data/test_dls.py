from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.vision.core import PILImage
from helpers import random_images

from s11_fastai import get_dls
from s11_fastai.data import transforms
from s11_fastai.data.loader import Shard, _sent
from s11_fastai.data.per_image import albumentations_default
from s11_fastai.data.transforms import channel_stats, cutout_, pad_crop_flip, sample_params
from s11_fastai.errors import S11Error
from s11_fastai.sources import Split


def batches(dl, epoch=0):
    dl.set_epoch(epoch)
    return [(x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)) for x, y in dl]


def same(a, b) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, v) and torch.equal(y, w) for (x, y), (v, w) in zip(a, b, strict=True)
    )


def test_a_batch_is_what_the_parts_say(images):
    dls = get_dls(images, bs=16, seed=5, device="cpu")
    x, y = batches(dls.train, epoch=3)[0]
    order = np.random.default_rng([5, 3, 0]).permutation(40)[:16]
    params = sample_params(40, 5, 3).take(order)
    mean, std = (torch.tensor(s)[:, None, None] for s in channel_stats(images.train.images))
    shown = torch.from_numpy(pad_crop_flip(images.train.images[order], params)).permute(0, 3, 1, 2)
    expected = cutout_((shown.float() / 255 - mean) / std, params.holes, 8)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)
    assert torch.equal(y, torch.from_numpy(images.train.labels[order]))
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_cutout_fills_with_the_mean_which_is_zero_once_normalised(images):
    x, _ = batches(get_dls(images, bs=40, device="cpu").train)[0]
    assert ((x == 0).all(1).flatten(1).sum(1) == 64).all()


def test_evaluated_images_are_neither_shuffled_nor_augmented(images):
    dls = get_dls(images, bs=10, device="cpu")
    x = torch.cat([x for x, _ in batches(dls.valid)])
    mean, std = (torch.tensor(s)[:, None, None] for s in channel_stats(images.train.images))
    plain = torch.from_numpy(images.valid.images).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(x, (plain - mean) / std, rtol=0, atol=1e-6)
    assert torch.equal(
        torch.cat([y for _, y in batches(dls.valid)]), torch.from_numpy(images.valid.labels)
    )


def test_98_batches_at_512_and_none_dropped(rng):
    """Each image is told by its first pixels, which no augmentation touches here."""
    many = random_images(rng, n_train=50_000)
    numbers = np.arange(50_000)
    many.train.images[:, 0, 0, 0], many.train.images[:, 0, 0, 1] = numbers % 256, numbers // 256
    dls = get_dls(many, device="cpu", augment=None)
    assert len(dls.train) == 98
    mean, std = (np.array(s)[:2] for s in channel_stats(many.train.images))
    sizes, seen = [], []
    for x, _ in dls.train:
        low, high = np.rint((x[:, :2, 0, 0].numpy() * std + mean) * 255).astype(int).T
        sizes.append(len(x))
        seen += (low + 256 * high).tolist()
    assert sizes == [512] * 97 + [336]
    assert sorted(seen) == numbers.tolist()
    assert seen != sorted(seen)


@pytest.mark.parametrize("augment", ["default", "albumentations"])
def test_the_same_batches_with_0_or_4_workers_and_in_any_order_of_asking(images, augment):
    pipeline = albumentations_default() if augment == "albumentations" else augment
    alone, helped = (
        get_dls(images, bs=7, seed=2, device="cpu", augment=pipeline, num_workers=n).train
        for n in (0, 4)
    )
    forth = [batches(alone, epoch) for epoch in (0, 1, 2)]
    back = [batches(helped, epoch) for epoch in (2, 1, 0)][::-1]
    for a, b in zip(forth, back, strict=True):
        assert same(a, b)
    assert not same(forth[0], forth[1])
    other = get_dls(images, bs=7, seed=3, device="cpu", augment=pipeline).train
    assert not same(forth[0], batches(other, 0))


def test_a_pass_leaves_the_images_as_they_are(images):
    before = [array.copy() for part in (images.train, images.valid) for array in part]
    dls = get_dls(images, bs=7, device="cpu")
    for dl in dls.loaders:
        for x, _ in dl:
            x.zero_()
    for a, b in zip(before, (*images.train, *images.valid), strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_are_padded_for_training_only(images):
    dls = get_dls(images, bs=7, device="cpu")
    list(dls.valid)
    assert "padded" not in vars(dls.train.augment)
    dls.train.one_batch()
    assert "padded" in vars(dls.train.augment)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_would_take_too_much_memory_are_padded_batch_by_batch(
    images, monkeypatch, workers
):
    def passes():
        dls = get_dls(images, bs=16, seed=5, num_workers=workers, device="cpu")
        return [batches(dls.train, epoch) for epoch in range(2)], dls.train.augment.padded

    kept, padded = passes()
    monkeypatch.setattr(transforms, "MOST_KEPT", 2 * images.train.images.nbytes - 1)
    again, none = passes()
    assert padded is not None
    assert none is None
    assert all(same(ours, theirs) for ours, theirs in zip(again, kept, strict=True))


def test_holes_go_where_their_images_go(images, monkeypatch):
    """To a GPU; what is pinned is seen here, and goes nowhere."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t.shape) or t.clone())
    batch = get_dls(images, bs=8, device="cpu").train.augment(np.arange(24, 32), epoch=0)
    sent = _sent(batch, torch.device("cpu"))
    assert torch.equal(sent, batch)
    assert torch.equal(sent.holes.corners, batch.holes.corners)
    assert sent.holes[1:] == batch.holes[1:] == (8, (32, 32))
    assert pinned == [(8, 3, 32, 32), (8, 2)]


def test_decoding_gives_the_images_back(images):
    dl = get_dls(images, bs=24, device="cpu").valid
    shown, _ = dl.decode(dl.one_batch())
    assert torch.equal(shown.permute(0, 2, 3, 1), torch.from_numpy(images.valid.images))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_shards_of_every_batch_put_together_are_the_batch(images, world_size):
    whole = get_dls(images, bs=16, device="cpu")
    sharded = [get_dls(images, bs=16, device="cpu") for _ in range(world_size)]
    for split in (0, 1):
        for rank, dls in enumerate(sharded):
            dls[split].shard = Shard(rank, world_size)
        together = list(zip(*(batches(dls[split]) for dls in sharded), strict=True))
        assert len(together) == len(whole[split])
        joined = [tuple(map(torch.cat, zip(*shards, strict=True))) for shards in together]
        assert same(joined, batches(whole[split]))
        for shards in together:
            sizes = [len(y) for _, y in shards]
            assert max(sizes) - min(sizes) <= 1


def test_a_pass_may_begin_at_a_later_batch_and_drop_a_short_last_one(images):
    dl = get_dls(images, bs=16, device="cpu").train
    whole = batches(dl, epoch=1)
    dl.set_epoch(1, first_batch=2)
    later = [(x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)) for x, y in dl]
    assert same(later, whole[2:])
    assert same(batches(dl.new(drop_last=True), epoch=1), whole[:2])


def test_global_generators_decide_nothing(images):
    dls = get_dls(images, bs=8, device="cpu")
    first = batches(dls.train)
    torch.manual_seed(123)
    np.random.seed(123)
    assert same(first, batches(dls.train))


def test_an_image_is_drawn_alike_in_any_batch_size(images):
    small, large = (get_dls(images, bs=bs, device="cpu").train for bs in (3, 40))
    assert torch.equal(torch.cat([x for x, _ in batches(small)]), batches(large)[0][0])


def test_without_a_learner_each_full_pass_is_a_new_epoch(images):
    dl = get_dls(images, bs=40, device="cpu").train
    first, second = ([(x, y) for x, y in dl] for _ in range(2))
    assert not same(first, second)
    assert same(second, batches(dl, epoch=1))


def test_statistics_are_those_of_the_training_images(images):
    mean, std = channel_stats(images.train.images)
    scaled = images.train.images / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-12)


def test_fastai_finds_what_it_expects(images):
    dls = get_dls(images, bs=8, device="cpu")
    assert (list(dls.vocab), dls.c) == (["ant", "bee", "cow"], 3)
    x, y = dls.train_ds[0]
    assert isinstance(x, PILImage)
    np.testing.assert_array_equal(np.array(x), images.train.images[0])
    assert int(y) == 0
    dls.show_batch(max_n=4)
    test_dl = dls.test_dl([0, 1, 41])
    assert test_dl.one_batch()[0].shape == (3, 3, 32, 32)


def test_holding_out_is_stratified_and_shows_no_test_image(rng):
    whole = random_images(rng, n_train=90, n_valid=30)
    held = whole.hold_out(30)
    assert (len(held.train.labels), len(held.valid.labels)) == (60, 30)
    assert np.bincount(held.valid.labels).tolist() == [10, 10, 10]
    assert held.evaluated_on == "held-out"
    rows = {image.tobytes() for image in whole.train.images}
    both = {i.tobytes() for part in (held.train, held.valid) for i in part.images}
    assert both == rows
    np.testing.assert_array_equal(held.valid.images, whole.hold_out(30).valid.images)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9])
@pytest.mark.parametrize(
    ("n_bees", "says"), [(1, "fewer than two training images: bee;"), (2, "choose a number")]
)
def test_holding_out_leaves_every_class_on_both_sides_or_refuses(rng, n, n_bees, says):
    whole = random_images(rng, n_train=10, classes=("ant", "bee"))
    labels = np.array([0] * (10 - n_bees) + [1] * n_bees)
    rare = replace(whole, train=Split(whole.train.images, labels))
    if (n_bees, n) == (2, 5):
        parts = rare.hold_out(n)
        assert {*parts.train.labels} == {*parts.valid.labels} == {0, 1}
    else:
        with pytest.raises(S11Error, match=says):
            rare.hold_out(n)
