"""The loader in fastai's hands: orders of others, looks, counts, and the bits of a plain pass."""

import gc
import hashlib
import pickle
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.callback.data import PartialDL, WeightedDL
from fastai.data.core import DataLoaders, Datasets
from fastai.data.load import SkipItemException
from fastai.data.transforms import IntToFloatTensor
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.vision.augment import Brightness, Flip, aug_transforms
from fastai.vision.core import PILImage, TensorImage
from fastcore.basics import noop
from fasttransform import Transform
from PIL import Image
from torch import Tensor, nn

from s11_fastai import PadCropFlip, dls_from_arrays, get_dls
from s11_fastai.data.loader import ResidentDL, Shard
from s11_fastai.errors import S11Error
from s11_fastai.sources import Split


@pytest.fixture
def dls(images) -> DataLoaders:
    return get_dls(images, bs=16, device="cpu")


@pytest.fixture
def learn(dls) -> Learner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    learn = Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        yield learn


def xs(dl) -> Tensor:
    """The images of a pass."""
    return torch.cat([x.as_subclass(Tensor) for x, *_ in dl])


def ys(dl) -> list[int]:
    return torch.cat([y.as_subclass(Tensor) for _, y in dl]).tolist()


def unlike(x: Tensor) -> int:
    """How many different images."""
    return len({image.numpy().tobytes() for image in x})


def digest(dl) -> str:
    """Of the bytes that are shown, which do not depend on a processor's way of rounding."""
    bits = hashlib.sha256()
    for batch in dl:
        x, y = dl.decode(batch)
        bits.update(x.as_subclass(Tensor).permute(0, 2, 3, 1).contiguous().numpy())
        bits.update(y.as_subclass(Tensor).numpy())
    return bits.hexdigest()[:16]


# (split, epoch, first batch, rank, world size): of a version before fastai chose the indices.
BITS = {
    (0, 0, 0, 0, 1): "5b061264dcb02905",
    (0, 1, 0, 0, 1): "a7a5d27b62e2a819",
    (0, 1, 1, 0, 1): "959db92340fbcc43",
    (0, 1, 2, 2, 3): "a62494fe846cc0a7",
    (1, 0, 0, 0, 1): "02604adb42e71e8b",
    (1, 0, 1, 1, 2): "d59f18c7e553b98c",
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("name", BITS)
def test_a_plain_pass_is_the_same_to_the_bit_in_every_version(name, num_workers):
    split, epoch, first_batch, rank, world_size = name
    pixels = (np.arange(64 * 32 * 32 * 3) * 7919 // 64 % 256).astype(np.uint8)
    pixels, labels = pixels.reshape(64, 32, 32, 3), np.arange(64) % 3
    arrays = pixels[:40], labels[:40], pixels[40:], labels[40:]
    dls = dls_from_arrays(*arrays, bs=16, seed=5, device="cpu", num_workers=num_workers)
    dls[split].shard = Shard(rank, world_size)
    dls[split].set_epoch(epoch, first_batch)
    assert digest(dls[split]) == BITS[name]


def test_the_count_goes_on_over_passes_and_not_over_looks(dls):
    dl, whole = dls.train, get_dls(dls.train.images, bs=16, device="cpu").train
    expected = [xs(whole) for _ in range(3)]
    dl.show_batch()
    dl.one_batch()
    assert dl.state_dict() == {"epoch": 0, "first_batch": 0}
    assert torch.equal(xs(dl), expected[0])
    assert torch.equal(xs(dl), expected[1])
    assert dl.state_dict() == {"epoch": 2, "first_batch": 0}
    dl.load_state_dict({"epoch": 1, "first_batch": 1})
    dl.one_batch()  # does not use it up
    assert dl.state_dict() == {"epoch": 1, "first_batch": 1}
    assert torch.equal(xs(dl), expected[1][16:])
    assert torch.equal(xs(dl), expected[2])


def test_a_pass_that_is_left_early_counts_as_soon_as_it_has_begun(dls):
    expected = [xs(dls.train) for _ in range(2)]
    dls.train.set_epoch(0, first_batch=1)
    assert torch.equal(next(iter(dls.train))[0].as_subclass(Tensor), expected[0][16:32])
    assert dls.train.state_dict() == {"epoch": 1, "first_batch": 0}
    dls.one_batch()
    assert dls.train.state_dict() == {"epoch": 1, "first_batch": 0}
    assert torch.equal(xs(dls.train.new()), expected[1])
    assert torch.equal(xs(dls.train), expected[1])
    assert dls.train.state_dict() == {"epoch": 2, "first_batch": 0}


def test_each_look_is_another_and_straight_after_set_epoch_that_epochs(dls):
    looks = [dls.one_batch()[0].as_subclass(Tensor) for _ in range(3)]
    assert unlike(torch.stack(looks)) == 3
    dls.train.set_epoch(0)
    assert torch.equal(dls.one_batch()[0].as_subclass(Tensor), xs(dls.train)[:16])


def test_passes_within_a_pass_are_counted_once(dls):
    for _ in zip(dls.train, dls.train, strict=True):
        pass
    assert dls.train.state_dict()["epoch"] == 2


def test_a_pass_is_not_disturbed_by_one_that_begins_within_it(dls):
    expected, seen = xs(dls.train), []
    dls.train.set_epoch(0)
    for x, _ in dls.train:
        seen.append(x.as_subclass(Tensor))
        dls.train.get_idxs()
        dls.one_batch()
    assert torch.equal(torch.cat(seen), expected)


def test_nine_of_one_image_are_nine_and_a_failure_leaves_the_loader(dls, monkeypatch):
    x, y, _ = dls.train.show_batch(unique=True, show=False)
    assert unlike(x[:9].as_subclass(Tensor)) == 9
    assert len(set(y[:9].tolist())) == 1

    def fails(*_):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(ResidentDL, "create_batches", fails)
        with pytest.raises(RuntimeError):
            dls.show_batch(unique=True)
    assert sorted(ys(dls.train)) == sorted(dls.train.images.train.labels)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_any_order_of_indices_is_sliced_and_each_place_sampled_anew(dls, num_workers):
    chosen = [0, 0, 7, 3] * 10
    dl = dls.train.new(get_idxs=lambda: chosen, num_workers=num_workers)
    first = xs(dl)
    assert ys(dl) == dl.images.train.labels[chosen].tolist()
    assert unlike(first) == 40
    assert unlike(torch.cat([first, xs(dl)])) == 80
    assert unlike(xs(dl.new(augment=None, after_batch=None))) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_other_kinds_of_loader_choose_the_indices_that_are_sliced(dls, num_workers):
    weights = np.zeros(40)
    weights[:2] = 1
    weighted = dls.train.new(cls=WeightedDL, wgts=weights, num_workers=num_workers)
    assert set(ys(weighted)) == {0, 1}
    assert unlike(xs(weighted)) == 40
    partial = dls.train.new(cls=PartialDL, partial_n=20, num_workers=num_workers)
    assert unlike(xs(pickle.loads(pickle.dumps(partial)))) == 20


def test_other_items_that_the_dataset_is_given_are_those_of_the_next_pass(dls):
    before = ys(dls.valid)
    dls.valid_ds.items = dls.valid_ds.items[::-1]
    assert ys(dls.valid) == before[::-1]


def test_a_loader_without_batches_gives_single_pictures(dls):
    for dl, hole in ((dls.train, 8 * 8), (dls.valid, 0)):
        x, y = next(iter(dl.new(bs=None, shuffle=False)))
        pixels = torch.from_numpy(dl.images.pixels_of(np.array(dl.dataset.items[:1]))[0]).permute(
            2, 0, 1
        )
        assert (x.shape, y) == ((1, 3, 32, 32), dl.dataset[0][1])
        shown = dl.after_batch.normalize.decodes(x)[0] * 255
        other = (shown.as_subclass(Tensor).round() != pixels).any(0)
        assert other.sum() == hole


def test_training_images_are_augmented_where_the_dataset_is_in_training(learn):
    plain, _ = learn.get_preds()
    assert torch.equal(plain, learn.get_preds(reorder=False)[0])
    (first, labels), (second, _) = (learn.get_preds(ds_idx=0) for _ in range(2))
    assert labels.tolist() == learn.dls.train.images.train.labels.tolist()
    assert not torch.equal(first, second)
    for ds_idx in (0, 1):
        augmented, _ = (learn.tta(ds_idx, n=1, beta=None)[0] for _ in range(2))
        again, evaluated = learn.tta(ds_idx, n=1, beta=None)[0]
        assert not torch.equal(augmented[0], again)
        assert torch.equal(augmented[1], evaluated)
    assert torch.equal(evaluated, plain)
    with learn.dls.valid_ds.set_split_idx(0):
        assert unlike(torch.cat([xs(learn.dls.valid) for _ in range(2)])) == 48


def test_an_albumentations_pipeline_augments_whatever_order_is_asked_for(images):
    import albumentations as A

    augment = A.Compose([A.RandomBrightnessContrast(p=1), A.Rotate(p=1)])
    dls = get_dls(images, bs=16, device="cpu", augment=augment)
    x, _, _ = dls.train.show_batch(unique=True, show=False)
    assert unlike(x[:9].as_subclass(Tensor)) == 9
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    learn = Learner(dls, model, loss_func=CrossEntropyLossFlat())
    with learn.no_bar(), learn.no_logging():
        for ds_idx in (0, 1):
            augmented, plain = learn.tta(ds_idx, n=1, beta=None)[0]
            assert not torch.isclose(augmented, plain).all(1).any()


def test_methods_that_somebody_gives_make_the_batches(dls):
    def collate(items):
        return torch.stack([x for x, _ in items]), torch.full((len(items),), 7)

    assert set(ys(dls.train.new(create_batch=collate))) == {7}
    assert set(ys(dls.train.new(do_batch=collate))) == {7}
    first = dls.valid_ds[0]
    same = dls.valid.new(create_item=lambda _: first)
    assert unlike(xs(same)) == 1
    assert len(ys(same)) == 24


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_image_that_stands_in_the_dataset_several_times_is_shown_otherwise_each_time(
    images, num_workers
):
    dls = get_dls(images, bs=16, seed=3, num_workers=num_workers, device="cpu")
    dls.train_ds.items = [*dls.train_ds.items, *[dls.train_ds.items[0]] * 24]
    dls.train = dls.train.new(dls.train_ds)
    whole = [xs([batch]) for batch in dls.train]
    assert unlike(torch.cat(whole)) == 64
    dls.train.set_epoch(0, first_batch=2)
    assert torch.equal(xs(dls.train), torch.cat(whole[2:]))


class Same(Transform):
    order = 6  # after ToTensor

    def encodes(self, x: TensorImage) -> TensorImage:
        return x


class LeaveOutDark(Transform):
    order = 6

    def encodes(self, x: TensorImage) -> TensorImage:
        if not x.any():
            raise SkipItemException
        return x


def test_item_transforms_keep_the_squares_that_are_cut_and_may_leave_items_out(images):
    plain, same = (get_dls(images, bs=16, seed=3, device="cpu") for _ in range(2))
    same.add_tfms([Same()], "after_item")
    assert torch.equal(xs(same.train), xs(plain.train))
    dark = images.train.images.copy()
    dark[::5] = 0
    black = replace(images, train=Split(dark, images.train.labels))
    some = get_dls(black, bs=16, augment=PadCropFlip(pad=0), device="cpu")
    some.add_tfms([LeaveOutDark()], "after_item")
    assert len(xs(some.train)) == 32


def test_numbers_that_are_no_indices_of_the_images_are_left_to_fastai(dls):
    pixels = dls.train.images.train.images
    assert dls.valid.new(dls.valid_ds.tls[0]).one_batch().shape == (16, 3, 32, 32)
    others = Datasets(range(9), [[lambda i: PILImage.create(pixels[-1 - i])], [lambda i: i]])
    _, y = dls.valid.new(others).one_batch()
    assert y.tolist() == list(range(9))


def test_what_a_worker_refuses_is_one_line(images):
    learn = Learner(get_dls(images, bs=16, num_workers=2, device="cpu"), nn.Flatten(), noop)
    with learn.no_bar(), pytest.raises(S11Error, match=r"^gone\.png is no picture") as error:
        learn.get_preds(dl=learn.dls.test_dl(["gone.png"]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["crops", "albumentations"])
def test_pictures_that_are_new_are_augmented_as_the_others(images, tmp_path, kind):
    import albumentations as A

    augment = PadCropFlip(hole=0) if kind == "crops" else A.Compose([A.Rotate((20, 40), p=1)])
    dls = get_dls(images, bs=16, device="cpu", augment=augment)
    files = [tmp_path / f"{i}.png" for i in range(24)]
    for file, pixels in zip(files, images.valid.images, strict=True):
        Image.fromarray(pixels).save(file)
    new = dls.test_dl(files)
    plain = xs(new)
    with new.dataset.set_split_idx(0):
        first, second = xs(new), xs(new)
    assert unlike(torch.cat([plain, first, second])) > 3 * 24 - 4  # a crop may be the whole
    assert torch.equal(xs(new), plain)
    with new.dataset.set_split_idx(0):
        new.set_epoch(7)
        again = xs(new)
        new.set_epoch(7)
        assert torch.equal(xs(new), again)


def test_fastais_batch_transforms_get_floats_and_are_the_last_conversion(dls):
    expected = xs(dls.train)
    seen = []

    class Watch(Transform):
        order = 20

        def encodes(self, x: torch.Tensor):
            if x.ndim == 4:
                seen.append((x.dtype, float(x.min()), float(x.max())))
            return x

    for added in ([IntToFloatTensor()], [Watch()], [Watch(), IntToFloatTensor()]):
        other = get_dls(dls.train.images, bs=16, device="cpu")
        other.add_tfms(added, "after_batch")
        torch.testing.assert_close(xs(other.train), expected, rtol=0, atol=1e-5)
    assert {dtype for dtype, *_ in seen} == {torch.float32}
    assert min(low for _, low, _ in seen) == 0
    assert 0.5 < max(high for *_, high in seen) <= 1

    class Float(Transform):
        order = 5  # before the bytes are made floats

        def encodes(self, x: TensorImage) -> TensorImage:
            return x.float()

    for where in ("after_item", "after_batch"):
        floats = get_dls(dls.train.images, bs=16, device="cpu")
        floats.add_tfms([Float()], where)
        torch.testing.assert_close(xs(floats.valid), xs(dls.valid), rtol=0, atol=1e-5)
    other.add_tfms([Brightness(), Flip(), *aug_transforms()], "after_batch")
    assert abs(xs(other.train).mean()) < 1
    assert xs(other.valid).shape == (24, 3, 32, 32)


def test_items_that_are_pictures_or_indices_of_any_kind_are_predicted(learn, images, tmp_path):
    from PIL import Image

    Image.fromarray(images.valid.images[3]).save(tmp_path / "a.png")
    expected = learn.get_preds()[0][3]
    for item in (
        3,
        np.int64(3),
        torch.tensor(3),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        images.valid.images[3],
    ):
        (found,), _ = learn.get_preds(dl=learn.dls.test_dl([item]))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(learn.predict(item)[2], expected)


@pytest.mark.parametrize("named", [False, True])
def test_anybodys_arrays_train_a_plain_learner(rng, named):
    import torchvision

    x = rng.integers(0, 256, (30, 48, 48, 3), dtype=np.uint8)
    y = [list("abcde")[i % 5] if named else i % 5 for i in range(30)]
    augment = PadCropFlip(pad=6, hole=12)
    dls = dls_from_arrays(x[:20], y[:20], x[20:], y[20:], bs=10, augment=augment, device="cpu")
    assert (list(dls.vocab), dls.c) == (list("abcde" if named else "01234"), 5)
    batch, _ = next(iter(dls.train))
    assert batch.shape == (10, 3, 48, 48)
    assert ((batch == 0).all(1).flatten(1).sum(1) == 144).all()
    model = torchvision.models.resnet18(num_classes=5)
    learn = Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
        assert learn.predict(x[0])[2].shape == (5,)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x_train": np.zeros((4, 8, 8, 3))}, "x_train must be uint8"),
        ({"y_valid": [0, 1]}, r"y_valid must be 4 labels, as x_valid, not of shape \(2,\)$"),
        ({"y_valid": np.zeros((4, 1), int)}, r"of shape \(4, 1\): give np.ravel\(y_valid\)"),
        ({"y_train": [0, 1, 2, 3], "vocab": "ab"}, "y_train goes from 0 to 3"),
        ({"y_train": list("abcd"), "vocab": "abc"}, "'d', which is not in vocab"),
        ({"x_valid": np.zeros((4, 9, 8, 3), np.uint8)}, "make them alike"),
        ({"x_train": [np.zeros((8, 8, 3)), np.zeros((4, 8, 3))]}, "x_train is no array"),
        ({"x_train": [], "y_train": []}, "x_train must be uint8"),
        ({"y_train": [0.0, 1.0, np.nan, 0.0]}, "y_train must be names or whole numbers"),
        ({"y_valid": None}, "y_valid must be names or whole numbers"),
        ({"y_train": list("abab")}, "both be names, or both be numbers: give vocab"),
        (
            {"y_train": [1, 2, 1, 2], "y_valid": [1, 2, 2, 1]},
            "go from 1 to 2: count the classes from",
        ),
        ({"y_train": [0, 1, 2, 3_000_000]}, "at most 1,000 of them, or give vocab"),
        ({"vocab": 2}, "vocab must be the names of the classes"),
        ({"vocab": ["a", "b", "a"]}, "vocab names a class twice"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(change, said):
    good = np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1]
    given = dict(zip(("x_train", "y_train", "x_valid", "y_valid"), good * 2, strict=True)) | change
    with pytest.raises(S11Error, match=said):
        dls_from_arrays(**given)


def test_arrays_that_must_not_be_written_are_read_without_a_warning(tmp_path, recwarn, request):
    request.addfinalizer(lambda: torch.set_warn_always(False))
    torch.set_warn_always(True)  # not the first time alone
    np.save(tmp_path / "x.npy", np.zeros((4, 8, 8, 3), np.uint8))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    dls = dls_from_arrays(x, [0, 1, 0, 1], x, [0, 1, 0, 1], bs=2, device="cpu")
    assert len(list(dls.train)) == len(list(dls.valid)) == 2
    assert not [w for w in recwarn if "writable" in str(w.message)]


def wrong_augments() -> dict[str, object]:
    import albumentations as A

    return {
        "cannot be used": [
            ["flip"],
            "none",
            False,
            nn.Identity(),
            Flip(),
            A.HorizontalFlip,
        ],
        "leave out Normalize": [
            A.Compose([A.Normalize()]),
            A.Compose([A.Resize(9, 9, p=0.001)]),
            A.OneOf([A.NoOp(), A.Resize(9, 9)], p=0.001),
            A.ToFloat(p=0.001),
        ],
        "fails on the first training image": [A.RandomCrop(64, 64)],
        "flip must be True, for half of the images, or False": [
            PadCropFlip(flip=0.5),
            PadCropFlip(flip=None),
            PadCropFlip(flip=2),
        ],
        "does not fit images of 32x32": [
            PadCropFlip(hole=32),
            PadCropFlip(pad=-1),
            PadCropFlip(0.5),
        ],
    }


def test_a_wrong_augment_is_told_at_once(images):
    for said, wrong in wrong_augments().items():
        for augment in wrong:
            with pytest.raises(S11Error, match=said):
                get_dls(images, device="cpu", augment=augment)
    import albumentations as A

    rare = A.Compose([A.PadIfNeeded(40, 40, p=0.5), A.RandomCrop(32, 32)])
    assert get_dls(images, 16, device="cpu", augment=rare).one_batch()[0].shape[2:] == (32, 32)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"images": "digits"}, "takes an ImageSet, not 'digits'"),
        ({"bs": 0}, "`bs` must be a whole number from 1, not 0"),
        ({"seed": -1}, "`seed` must be a whole number from 0, not -1"),
        ({"num_workers": 0.5}, "`num_workers` must be a whole number from 0, not 0.5"),
        ({"device": "toaster"}, "`device` toaster is not on this computer"),
    ],
)
def test_a_wrong_argument_is_told_at_once(images, argument, said):
    with pytest.raises(S11Error, match=said):
        get_dls(**{"images": images, "device": "cpu"} | argument)


def test_nothing_keeps_the_images_and_the_loaders_can_be_pickled(images):
    def use() -> list[weakref.ref]:
        train = Split(images.train.images.copy(), images.train.labels)
        mine = replace(images, train=train)
        dls = get_dls(mine, bs=16, device="cpu")
        dls.show_batch()
        pickled = pickle.dumps(dls)
        pixels = sum(part.images.nbytes for part in (images.train, images.valid))
        assert len(pickled) < 1.2 * pixels  # without the padded copies
        assert torch.equal(xs(pickle.loads(pickled).train), xs(dls.train))
        return [weakref.ref(mine), weakref.ref(train.images)]

    left = use()
    gc.collect()
    assert [ref() for ref in left] == [None, None]
