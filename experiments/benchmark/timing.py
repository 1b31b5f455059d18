"""Sides measured in turns, and what comes of it as plain rows."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import torch

PROJECT = "this project"


class Row(NamedTuple):
    """What was measured of one side, and how it stands to the limit and to this project.

    `to_limit` and `to_project` are this side's value divided by theirs; `other` says the same
    as `value` in another unit. Each of the three is None where there is no such thing.
    """

    section: str
    side: str
    value: float
    unit: str
    other: float | None = None
    other_unit: str = ""
    to_limit: float | None = None
    to_project: float | None = None


def round_robin(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each side once a round, after one round that is not counted: values by side.

    In turns, so that whatever else the machine does falls on all sides alike.
    """
    values = {name: [] for name in sides}
    for counted in [False] + [True] * rounds:
        for name, measure in sides.items():
            value = measure()
            if counted:
                values[name].append(value)
    return values


def rows_of(
    section: str,
    unit: str,
    values: Mapping[str, Sequence[float]],
    limit: str | None = None,
    other: Callable[[float], float] | None = None,
    other_unit: str = "",
) -> list[Row]:
    """A row for each side: the median of its values, and of the ratios within each round.

    `limit` names the side that bounds the others; `other` turns a value into another unit.
    """

    def ratio(name: str, base: str | None) -> float | None:
        if base not in values:
            return None
        return median(a / b for a, b in zip(values[name], values[base], strict=True))

    rows = []
    for name, measured in values.items():
        middle = median(measured)
        row = Row(section, name, middle, unit, other and other(middle), other_unit)
        rows.append(row._replace(to_limit=ratio(name, limit), to_project=ratio(name, PROJECT)))
    return rows


def seconds_of(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


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
