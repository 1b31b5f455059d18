"""The table of a study: an INI file whose sections are variants, as runs that are to be made."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from s11_fastai.errors import S11Error
from s11_fastai.runs.schema import shown
from s11_fastai.streams import is_printable


class Job(NamedTuple):
    """One run of a study: the variant's name, its seed, and run.py's flags but for the images."""

    variant: str
    seed: int
    flags: tuple[str, ...]

    @property
    def key(self) -> str:
        """The flags as a row has them, by which it is known."""
        return shlex.join(self.flags)

    @property
    def folder(self) -> str:
        return f"{re.sub(r'[^A-Za-z0-9.]+', '-', self.variant).strip('-')}-seed{self.seed}"


def read_table(path: Path) -> list[Job]:
    """The runs of a table, first seeds first; raises S11Error where it is no such table."""
    table = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    try:
        table.read_string(path.read_text(encoding="utf-8"), source=path.name)
        places = [
            (place, Job(name, seed, flags_of(table[name])))
            for name in table.sections()
            for place, seed in enumerate(seeds_of(table[name]))
        ]
        jobs = [job for _, job in sorted(places, key=lambda each: each[0])]
        for word in (word for job in jobs for word in (job.variant, *job.flags)):
            if not is_printable(word):
                raise ValueError(f"{shown(word)} is no printable text")
        for what in ("folder", "flags"):
            check_variants_differ(jobs, what)
    except (configparser.Error, ValueError) as error:
        why = " ".join(str(error).split())
        raise S11Error(f"{path} is no table of settings ({why}): see --help") from error
    if not jobs:
        raise S11Error(f"{path} has no variant: add a [section]")
    return jobs


def seeds_of(section: configparser.SectionProxy) -> list[int]:
    """A section's seeds, each once; raises ValueError for what is no number."""
    return list(dict.fromkeys(map(int, section.get("seeds", "0").split())))


def flags_of(section: configparser.SectionProxy) -> tuple[str, ...]:
    """A section's settings as flags of run.py, in the order of their names."""
    return tuple(
        word for name in sorted(section) if name != "seeds" for word in (f"--{name}", section[name])
    )


def check_variants_differ(jobs: list[Job], what: str) -> None:
    """Raise ValueError for two variants with the same folder or flags: a row would be both's."""
    names: dict[object, str] = {}
    for job in jobs:
        other = names.setdefault((getattr(job, what), job.seed), job.variant)
        if other != job.variant:
            raise ValueError(f"[{other}] and [{job.variant}] have the same {what}")


def words_of(path: Path) -> str:
    """What a table says of itself: the comment that it begins with, in one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = lines[: next((i for i, line in enumerate(lines) if not line.startswith("#")), 0)]
    return " ".join(line.lstrip("# ") for line in comment)
