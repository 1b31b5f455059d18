"""A fastai DataLoader that slices whole batches from images in memory, and may take a share."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from fastai.data.core import Datasets, TfmdDL
from fastai.torch_core import TensorCategory

from s11_fastai.data.per_image import PerImage
from s11_fastai.data.transforms import PadCropFlip, epoch_order, to_batch
from s11_fastai.sources import ImageSet


class Share(NamedTuple):
    """Which part of every batch is loaded: the one at `index` of `count`, sizes as equal as can be.

    The parts lie in the batch one after the other, the larger ones first.
    """

    index: int = 0
    count: int = 1

    def of(self, batch: np.ndarray) -> np.ndarray:
        return np.array_split(batch, self.count)[self.index]

    @staticmethod
    def sizes(n: int, count: int) -> list[int]:
        """How many of `n` images each of `count` shares has."""
        return [n // count + (index < n % count) for index in range(count)]


class ResidentDL(TfmdDL):
    """A DataLoader whose batches are sliced whole from images that lie in memory.

    `set_epoch` chooses what the next pass draws; without it each full pass moves on by one.
    `share` is the part of every batch that this process gets.
    """

    def __init__(
        self,
        dataset: Datasets,
        *args,
        images: ImageSet,
        seed: int = 0,
        augment: PadCropFlip | PerImage | None = None,
        **kwargs,
    ) -> None:
        self.images, self.seed, self.augment = images, seed, augment
        self.epoch, self.first_batch, self.share = 0, 0, Share()
        self.batches: list[np.ndarray] | None = None
        super().__init__(dataset, *args, **kwargs)

    def new(self, dataset: Datasets | None = None, cls: type | None = None, **kwargs) -> TfmdDL:
        if cls is None or issubclass(cls, ResidentDL):
            own = {"images": self.images, "seed": self.seed, "augment": self.augment}
            kwargs = own | kwargs
        return super().new(dataset, cls, **kwargs)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Make the next pass that of `epoch`, beginning with `first_batch`, both counted from 0."""
        self.epoch, self.first_batch = epoch, first_batch

    # fastai calls the next two in this order, in the process that then forks its workers.

    def before_iter(self) -> None:
        super().before_iter()
        self.batches = None
        if self.augment and self.dataset.split_idx == 0:
            self.augment.prepare()

    def get_idxs(self) -> Sequence[int]:
        if self.indices is None:
            return super().get_idxs()
        n = len(self.indices)
        order = epoch_order(n, self.seed, self.epoch) if self.shuffle else np.arange(n)
        end = min(n, len(self) * self.bs)  # less than all where a short last batch is dropped
        starts = range(self.first_batch * self.bs, end, self.bs)
        self.batches = [self.share.of(self.indices[order[i : i + self.bs]]) for i in starts]
        return order

    @cached_property
    def indices(self) -> np.ndarray | None:
        """The dataset's items where they are indices of images; None where they are others."""
        items = self.dataset.items
        ours = self.bs and len(items) and isinstance(items[0], Integral)
        return np.array(list(items)) if ours else None

    def after_iter(self) -> None:
        super().after_iter()
        self.epoch, self.first_batch = self.epoch + 1, 0

    def create_batches(self, samps: Iterable[int]) -> Iterator[tuple]:
        if self.batches is None:  # others than indices: left to fastai, one by one
            yield from super().create_batches(samps)
            return
        for indices in self.batches[self.offs :: self.num_workers]:
            yield self._to_gpu(self._slice(indices))

    def _slice(self, indices: np.ndarray) -> tuple:
        if self.augment and self.dataset.split_idx == 0:
            batch = (self.augment(indices, self.epoch),)
        else:
            batch = (to_batch(self.images.pixels_of(indices)),)
        if len(self.dataset.tls) > 1:
            batch += (TensorCategory(torch.from_numpy(self.images.labels_of(indices))),)
        return batch

    def _to_gpu(self, batch: tuple) -> tuple:
        # fastai's own way waits for the copy, and so for every step that was begun before it.
        if self.device is None or self.device.type != "cuda" or self.fake_l.num_workers:
            return batch
        return tuple(_sent(tensor, self.device) for tensor in batch)


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the GPU, as soon as it gets there, with the holes that are to be cut in it."""
    sent = tensor.pin_memory().to(device, non_blocking=True)
    if hasattr(tensor, "holes"):
        sent.holes = _sent(tensor.holes, device)
    return sent
