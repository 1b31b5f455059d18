"""A fastai DataLoader that slices whole batches from images in memory, and may take a shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from numbers import Integral
from typing import NamedTuple, Protocol

import numpy as np
import torch
from fastai.data.core import Datasets, TfmdDL
from fastai.data.load import SkipItemException
from fastai.data.transforms import ToTensor
from fastai.torch_core import TensorCategory
from fastai.vision.core import PILImage, TensorImage
from fastcore.basics import chunked, noop
from fasttransform import Pipeline

from s11_fastai.data.items import forget_images, has_pictures_of
from s11_fastai.data.transforms import defer, epoch_order, to_batch
from s11_fastai.sources import ImageSet


class Shard(NamedTuple):
    """Which part of every batch is loaded: that of `rank` among `world_size`, as equal as can be.

    The shards lie in the batch one after the other, the larger ones first.
    """

    rank: int = 0
    world_size: int = 1

    def of(self, batch: np.ndarray) -> np.ndarray:
        return np.array_split(batch, self.world_size)[self.rank]

    @staticmethod
    def sizes(n: int, world_size: int) -> list[int]:
        """How many of `n` images each of `world_size` shards has."""
        return [n // world_size + (rank < n % world_size) for rank in range(world_size)]


class Augmenter(Protocol):
    """What augments whole batches: `PaddedImages` and `PerImage`."""

    @property
    def in_words(self) -> str: ...

    def prepare(self) -> None: ...

    def __call__(
        self, indices: np.ndarray, epoch: int, key: tuple[int, ...] = ()
    ) -> TensorImage: ...

    def of_pixels(self, pixels: np.ndarray, epoch: int, key: tuple[int, ...]) -> TensorImage: ...

    def without_images(self) -> Augmenter | None: ...


class ResidentDL(TfmdDL):
    """A fastai DataLoader whose batches are sliced whole from images that lie in memory.

    The dataset's items are indices of images. fastai chooses their order, and the loader slices
    and augments whatever indices it gets. Where the order is the loader's own, all follows from
    `seed` and the epoch: `set_epoch` or `load_state_dict` choose it, and each pass moves on by one,
    also one that is left before its end. A dataset that has an image several times shows each
    otherwise. Any other order (a `get_idxs` from outside, `one_batch`, `show_batch`) may show an
    image several times too, so each place in a batch is sampled anew, from fastai's generator.
    `shard` is the part of every batch that this process gets.
    """

    def __init__(
        self,
        dataset: Datasets,
        *args,
        images: ImageSet,
        seed: int = 0,
        augment: Augmenter | None = None,
        **kwargs,
    ) -> None:
        self.images, self.seed, self.augment = images, seed, augment
        self.epoch, self.first_batch, self.shard = 0, 0, Shard()  # of the next pass
        self._now = 0  # the epoch of the last pass that was begun
        self._first = 0  # and its first batch
        self._key: tuple[int, ...] = ()
        self._begin = 0
        self._looking = self._chosen = False
        self._when_begun: Callable[[], None] | None = None
        super().__init__(dataset, *args, **kwargs)

    def new(
        self, dataset: Datasets | None = None, cls: type[TfmdDL] | None = None, **kwargs
    ) -> TfmdDL:
        """fastai's `new`; another kind of TfmdDL, as WeightedDL, slices its batches too.

        Other batch transforms take the place of all, of the augmentation too, unless it is given
        as `augment`. For a dataset without items, as in what is exported, the loader keeps no
        image.
        """
        if cls is not None and not issubclass(cls, ResidentDL) and cls is not TfmdDL:
            cls = _resident(cls)
        if cls is TfmdDL:
            return super().new(dataset, cls, **kwargs)
        own = {"images": self.images, "seed": self.seed, "augment": self.augment}
        if dataset is not None and not len(dataset):  # so does `learn.export` ask for it
            left = self.augment and self.augment.without_images()
            own |= {"images": self.images.without_images(), "augment": left}
            dataset = forget_images(dataset)
        if "after_batch" in kwargs:
            own["augment"] = None
        new = super().new(dataset, cls, **own | kwargs)
        new.epoch = new._now = self.epoch
        return new

    # What the next pass is.

    @property
    def begins_at_batch(self) -> bool:
        """Whether a pass can begin with any batch: the order of the indices is the loader's own."""
        return not self._replaced("get_idxs", "shuffle_fn")

    def _replaced(self, *names: str) -> bool:
        """Whether somebody gave another method of one of these names, or a subclass has one."""
        return any(
            name in vars(self) or getattr(type(self), name) is not getattr(ResidentDL, name)
            for name in names
        )

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Make the next pass that of `epoch`, beginning with `first_batch`, both counted from 0."""
        self.epoch = self._now = epoch
        self.first_batch, self._chosen = first_batch, True

    def state_dict(self) -> dict[str, int]:
        """Which pass comes next, after the one that is under way."""
        return {"epoch": self.epoch, "first_batch": self.first_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Make the next pass the one that `state` tells."""
        self.set_epoch(state["epoch"], state["first_batch"])

    def when_begun(self, call: Callable[[], None]) -> None:
        """Call it once in the next pass, before anything random is drawn for its first batch.

        With workers, which draw in other processes, it is forgotten.
        """
        self._when_begun = call

    # To look at images belongs to no epoch, and shows others each time.

    def one_batch(self) -> tuple:
        """Another first batch each time; straight after `set_epoch`, that epoch's."""
        before = self.epoch, self.first_batch
        self._looking = not self._chosen
        try:
            return super().one_batch()
        finally:
            self._looking = False
            self.epoch, self.first_batch = before

    def show_batch(self, *args, **kwargs) -> object:
        """fastai's, which leaves `get_idxs` replaced where it fails."""
        attributes = self.__dict__
        given = {"get_idxs": attributes["get_idxs"]} if "get_idxs" in attributes else {}
        try:
            return super().show_batch(*args, **kwargs)
        finally:
            attributes.pop("get_idxs", None)
            attributes.update(given)

    # fastai calls the next three in this order, in the process that then forks its workers.

    def before_iter(self) -> None:
        super().before_iter()
        self.__dict__.pop("indices", None)  # somebody may have given the dataset other items
        if not self._looking:
            self._now, self.epoch = self.epoch, self.epoch + 1
            self._begin, self.first_batch = self.first_batch, 0
        self._chosen = False
        if self.fake_l.num_workers:
            self._when_begun = None
        self._key = (self.rng.getrandbits(32),)  # unless the order is the epoch's
        if isinstance(self.after_batch, Pipeline):
            defer(self.after_batch)
        if augment := self._augmenter:
            augment.prepare()

    def get_idxs(self) -> list[int]:
        if not self._looking:
            self._key = ()
        self._first, self._begin = self._begin, 0  # outside of a pass it is the whole order
        return super().get_idxs()[self._first * (self.bs or 1) :]

    def shuffle_fn(self, idxs: list[int]) -> list[int]:
        order = epoch_order(len(idxs), self.seed, self._now, self._key)
        return np.asarray(idxs)[order].tolist()

    # And this in each worker: `samps` are places in the dataset, of all batches that it makes.

    def create_batches(self, samps: Iterable[int]) -> Iterator[tuple]:
        # Items that are no indices are fastai's to make, one by one.
        if self.indices is None or self._replaced("create_item", "do_item"):
            yield from self._of_pictures(super().create_batches(samps))
            return
        if self._when_begun:
            self._when_begun()
        self._when_begun = None
        # Another pass may begin before this one ends.
        epoch, key, shard, first = self._now, self._key, self.shard, self._first
        in_train = self.images.places_in_train(self.indices)
        if self._augmenter and ((in_train < 0).any() or len(np.unique(in_train)) < len(in_train)):
            key = key or (0,)  # an epoch has parameters for each training image, once
        for i, places in enumerate(chunked(samps, self.bs, self.drop_last)):
            indices = shard.of(self.indices[places])
            number = first + i * self.num_workers + self.offs
            yield self._to_gpu(self._slice(indices, epoch, key and (*key, number)))

    def _of_pictures(self, batches: Iterable[tuple]) -> Iterator[tuple]:
        """Batches of pictures that are new here, augmented where the others would be."""
        epoch, key, first = self._now, self._key or (0,), self._first
        for i, batch in enumerate(batches):
            pictures = batch[0].dtype == torch.uint8 and batch[0].ndim == 4  # no single one
            if pictures and (augment := self._augmenter):
                pixels = np.ascontiguousarray(batch[0].permute(0, 2, 3, 1).numpy())
                number = first + i * self.num_workers + self.offs
                batch = (augment.of_pixels(pixels, epoch, (*key, number)), *batch[1:])
            yield batch

    def _slice(self, indices: np.ndarray, epoch: int, key: tuple[int, ...]) -> tuple:
        augment = self._augmenter
        x = augment(indices, epoch, key) if augment else to_batch(self.images.pixels_of(indices))
        batch: tuple = (x,)
        if len(self.dataset.tls) > 1:
            batch += (TensorCategory(torch.from_numpy(self.images.labels_of(indices))),)
        by_item = any(_acts(pipeline) for pipeline in (self.after_item, self.before_batch))
        if by_item or self._replaced("create_batch", "do_batch", "retain"):
            return self._by_item(batch)
        return batch

    def _by_item(self, batch: tuple) -> tuple:
        """A batch whose items go through what acts on each of them, and keep their holes."""
        items = []
        for item in zip(map(PILImage.create, batch[0]), *batch[1:], strict=True):  # a dataset's
            with suppress(SkipItemException):
                items.append(self.after_item(item))
        out, holes = self.do_batch(items), getattr(batch[0], "holes", None)
        if holes is not None and hasattr(out[0], "__dict__"):
            out[0].__dict__["holes"] = holes
        return out

    @property
    def _augmenter(self) -> Augmenter | None:
        """What augments, for training images alone."""
        return self.augment if getattr(self.dataset, "split_idx", None) == 0 else None

    @cached_property
    def indices(self) -> np.ndarray | None:
        """The dataset's items where they are indices of images; None where they are others."""
        items = list(getattr(self.dataset, "items", ()))
        kinds = set(map(type, items)) if self.bs else set()
        numbers = kinds and all(issubclass(kind, Integral) and kind is not bool for kind in kinds)
        ours = numbers and has_pictures_of(self.dataset, self.images)
        return self.images.checked(np.array(items)) if ours else None

    def _to_gpu(self, batch: tuple) -> tuple:
        # fastai's own way waits for the copy, and so for every step that was begun before it.
        if self.device is None or self.device.type != "cuda" or self.fake_l.num_workers:
            return batch
        return tuple(_sent(tensor, self.device) for tensor in batch)


def _resident(cls: type) -> type:
    """Another kind of TfmdDL that chooses indices in its own way, and slices them in ours."""
    # A class that is made here is found by nobody who unpickles, such as a spawned worker.
    found = {"__reduce__": lambda dl: (_empty, (cls,), vars(dl))}
    return type(cls.__name__, (cls, ResidentDL), found)


def _empty(cls: type) -> ResidentDL:
    return object.__new__(_resident(cls))


def _acts(pipeline: Pipeline | Callable) -> bool:
    """Whether it does anything to what is a tensor already."""
    if not isinstance(pipeline, Pipeline):  # a plain function that somebody has put there
        return pipeline is not noop
    return any(not isinstance(f, ToTensor) and f.name != "noop" for f in pipeline.fs)


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the GPU, as soon as it gets there, with the holes that are to be cut in it."""
    sent = tensor.pin_memory().to(device, non_blocking=True)
    holes = getattr(tensor, "holes", None)
    if holes is not None:
        sent.__dict__["holes"] = holes._replace(corners=_sent(holes.corners, device))
    return sent
