"""Sides measured in turns, and what comes of it as tables of plain values."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import torch

PROJECT = "this project"
CPU = torch.device("cpu")


class Row(NamedTuple):
    """One side: its values in the table's units, and how many times the project's its time is.

    None stands where there is no such thing.
    """

    side: str
    values: tuple[float | None, ...]
    ratio: float | None = None


class Table(NamedTuple):
    """What was measured in one section; `says` tells a reader what it shows.

    `units` are the headers of the rows' values, `ratio` is that of their ratio.
    """

    section: str
    units: tuple[str, ...]
    rows: tuple[Row, ...]
    says: str
    ratio: str = f"times {PROJECT}'s time"


def round_robin(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each side once a round, after one round that is not counted: values by side.

    In turns, so that whatever else the machine does falls on all sides alike.
    """
    values: dict[str, list[float]] = {name: [] for name in sides}
    for counted in [False] + [True] * rounds:
        for name, measure in sides.items():
            value = measure()
            if counted:
                values[name].append(value)
    return values


def rows_of(
    seconds: Mapping[str, Sequence[float]],
    units: Sequence[Callable[[float], float]],
    base: str | None = None,
) -> tuple[Row, ...]:
    """A row for each side: the median of its seconds in each unit, and its ratio to `base`.

    The ratio is the median of those within each round, so more than 1 is slower than `base`.
    """

    def ratio(own: Sequence[float]) -> float | None:
        if base is None:
            return None
        return median(a / b for a, b in zip(own, seconds[base], strict=True))

    return tuple(
        Row(name, tuple(unit(median(own)) for unit in units), ratio(own))
        for name, own in seconds.items()
    )


def seconds_of(action: Callable[[], object], device: torch.device = CPU) -> float:
    """How long it takes, with all that it begins on the device."""
    wait_for(device)
    start = time.perf_counter()
    action()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that it was told; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def one_core() -> Iterator[None]:
    """One thread of torch within, and on Linux one core for this process."""
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    torch.set_num_threads(1)
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if cores:
            os.sched_setaffinity(0, cores)
