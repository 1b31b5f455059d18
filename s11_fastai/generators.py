"""The state of random generators, as tensors and plain values, and back."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch


def generator_state() -> dict[str, Any]:
    """The state of torch's, NumPy's and Python's global random generators."""
    name, keys, *rest = cast(tuple, np.random.get_state(legacy=True))
    state = {
        "torch": torch.get_rng_state(),
        "python": listed(random.getstate()),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
    }
    return state | {name: device.get_rng_state() for name, device in _devices().items()}


def _devices() -> dict[str, Any]:
    """The modules of the kinds of devices that are here and have a generator of their own."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return {name: getattr(torch, name) for name, is_there in there.items() if is_there}


def load_generator_state(state: Mapping[str, Any]) -> None:
    """Put back what `generator_state` gave."""
    torch.set_rng_state(state["torch"])
    random.setstate(tupled(state["python"]))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    for name, device in _devices().items():
        if name in state:
            device.set_rng_state(state[name])


def listed(state: tuple) -> list:
    """The state of one of Python's generators, as a list of what a file can hold."""
    version, keys, gauss = state
    return [version, torch.tensor(keys, dtype=torch.int64), gauss]


def tupled(state: list) -> tuple:
    """The same as Python's generators take it."""
    version, keys, gauss = state
    return version, tuple(keys.tolist()), gauss


def loader_generator_state(loaders: Sequence[Any]) -> dict[str, Any]:
    """The state of the generators that fastai's and PyTorch's loaders have of their own."""
    return {
        "rngs": [listed(rng.getstate()) for rng in _rngs_of(loaders)],
        "generators": [each.get_state() for each in generators_of(loaders)],
    }


def load_loader_generator_state(loaders: Sequence[Any], state: Mapping[str, Any]) -> None:
    """Put back what `loader_generator_state` gave of as many loaders."""
    for rng, kept in zip(_rngs_of(loaders), state["rngs"], strict=True):
        rng.setstate(tupled(kept))
    for generator, kept in zip(generators_of(loaders), state["generators"], strict=True):
        generator.set_state(kept)


def _rngs_of(loaders: Iterable[Any]) -> list[random.Random]:
    """What fastai's loaders among these draw from; its DistributedDL has one in `dl`."""
    owners = (getattr(loader, "__dict__", {}).get("dl", loader) for loader in loaders)
    found = (getattr(owner, "rng", None) for owner in owners)
    return [rng for rng in found if isinstance(rng, random.Random)]


def generators_of(loaders: Iterable[Any]) -> list[torch.Generator]:
    """What PyTorch's own loaders among these draw from, where it is not the global generator."""
    found: dict[int, torch.Generator] = {}
    for loader in loaders:
        if isinstance(loader, torch.utils.data.DataLoader):
            inner = getattr(loader.batch_sampler, "sampler", None)
            for owner in (loader, loader.sampler, inner):
                if (generator := getattr(owner, "generator", None)) is not None:
                    found[id(generator)] = generator
    return list(found.values())
