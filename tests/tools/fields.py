"""Run folders in which one field is wrong, for everything that reads a run folder.

Each field of each record, of the tables and of the seals gets values of every wrong kind, sign and
size. Every reader must end in a result or in an S11Error of one printable line, in bounded time.
"""

import csv
import io
import json
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from safetensors import safe_open
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import compare

from s11_fastai import load_images
from s11_fastai.errors import S11Error
from s11_fastai.report import page
from s11_fastai.report.comparison import write_comparison
from s11_fastai.report.groups import group_by_settings
from s11_fastai.runs import load
from s11_fastai.runs.checkpoints import FORMAT, Checkpoints
from s11_fastai.runs.records import (
    Records,
    bounds_or_none,
    env_or_empty,
    read_records,
    results_or_none,
)
from s11_fastai.storage import Folder, pack, read_tensors, unpack, write_tensors

RUN = Path(__file__).parents[1] / "runs/run-0.1"
SECONDS = 60  # after which an input counts as one that never ends
ABSENT = object()
DEEP = json.loads("[" * 400 + "]" * 400)
KINDS = [ABSENT, None, True, False, "", "1", "x", "nan", [], [1], [None], [[[1]]], {}, {"a": [1]}]
SIZES = [-1, 0, 1, 2, 7, 3_000, 2**31, 2**63, 10**30, -(10**30), 10**400, 1.5, -0.5, 5e-324, 1e308]
ENDS = [float("nan"), float("inf"), float("-inf")]
TEXTS = ["\x1b[2Jx", "a\nb", "\0", "\ud800", "\u202e", "é" * 100, "x" * 10_000, "../../x", DEEP]
WRONG = [*KINDS, *SIZES, *ENDS, *TEXTS]
CELLS = ["", "x", "-1", "0", "1", "2", "7", "1.5", "1e308", "1e-320", "nan", "inf", "-inf"]
CELLS += ["True", "1_0", " 1", "\u0661", "9" * 5_000, "x" * 10_000, "\x1b[2J", "a\nb", '"', "1,2"]


class Case(NamedTuple):
    """A file of a run folder, in words what is wrong there, and what makes it so."""

    file: str
    what: str
    spoil: Callable[[Path], None]


def make_run(run: Path) -> Path:
    """A finished run with a range test and a checkpoint, of images that are at hand."""
    shutil.copytree(RUN, run)
    change(run / "env.json", lambda env: env | {"precision": "fp32", "resumed": [{"step": 3}]})
    curve = {"lrs": [1e-3 * 2**i for i in range(12)], "losses": [3 - 0.1 * i for i in range(12)]}
    change(run / "lr_bounds.json", lambda bounds: bounds | curve)
    weights, _ = read_tensors(run / "model.safetensors")
    state = {
        "epoch": 2,
        "batch": 0,
        "learner": {"model": dict(weights), "epoch": 2},
        "floats": [0.5],
    }
    for name in ("config", "env"):
        state |= {name: json.loads((run / f"{name}.json").read_text())}
    Checkpoints(run / "checkpoint").write(state)
    return run


def cases(run: Path) -> list[Case]:
    """All of them, of the run that `make_run` made."""
    return [*_of_json(run), *_of_tables(run), *_of_seals(run)]


def _of_json(run: Path) -> Iterator[Case]:
    for file in ("config.json", "env.json", "lr_bounds.json", "results.json"):
        fields = json.loads((run / file).read_text())
        for field in [*fields, "unknown"]:
            for value in WRONG:
                yield Case(file, f"{field} {value!r:.60}", _with_field(field, value))
        for value in [None, 1, "x", [], [fields], DEEP]:
            yield Case(file, f"{value!r:.60}", _with(json.dumps(value).encode()))
        for raw in (b"", b"{", b"\xff", b"{" * 5_000, b'{"a": ' + b"9" * 5_000 + b"}"):
            yield Case(file, f"{raw[:20]!r}", _with(raw))
        yield Case(file, "a folder", _as_folder)
    for field in ("lrs", "losses"):
        for value in WRONG:
            yield Case("lr_bounds.json", f"{field}[3] {value!r:.60}", _with_element(field, value))


def _of_tables(run: Path) -> Iterator[Case]:
    for file in ("history.csv", "steps.csv"):
        header, *rows = csv.reader(io.StringIO((run / file).read_text()))
        for column, name in enumerate(header):
            for row in (0, len(rows) - 1):
                for cell in CELLS:
                    what = f"{name} of row {row} {cell!r:.60}"
                    yield Case(file, what, _with_cell(row, column, cell))
        for what, lines in {
            "no rows": [header],
            "no header": rows,
            "a row less": [header, *rows[:-1]],
            "a row more": [header, *rows, rows[-1]],
            "rows in another order": [header, *rows[::-1]],
            "a column less": [row[:-1] for row in (header, *rows)],
            "an empty row": [header, [], *rows],
            "many rows": [header, *rows * 2_000],
        }.items():
            yield Case(file, what, _with(_table(lines)))
        whole = (run / file).read_bytes()
        for end in (0, 1, len(whole) // 2, len(whole) - 1):
            yield Case(file, f"cut at {end}", _with(whole[:end]))
        yield Case(file, "a folder", _as_folder)
        yield Case(file, "absent", Path.unlink)


def _of_seals(run: Path) -> Iterator[Case]:
    file = "model.safetensors"
    for value in WRONG:
        for key in ("about", "sha256"):
            yield Case(file, f"{key} {value!r:.60}", _with_seal(key, value))
    for value in (DEEP, [], {}, 1, "x"):
        yield Case(file, f"seal {value!r:.60}", _with_seal(None, value))
    for what, alter in {
        "none": lambda weights: {},
        "one less": lambda weights: dict(list(weights.items())[1:]),
        "one more": lambda weights: weights | {"\x1b[2J": torch.zeros(1)},
        "flat": lambda weights: {k: v.reshape(-1) for k, v in weights.items()},
        "no classes": lambda weights: weights | {"fc.bias": torch.zeros(0)},
        "many classes": lambda weights: weights | {"fc.bias": torch.zeros(10**6)},
        "no number": lambda weights: {k: v * float("nan") for k, v in weights.items()},
        "infinite": lambda weights: {k: v / 0 for k, v in weights.items()},
        "huge": lambda weights: {k: v * 1e30 for k, v in weights.items()},
        "double": lambda weights: {k: v.double() for k, v in weights.items()},
        "whole": lambda weights: {k: v.to(torch.int8) for k, v in weights.items()},
        "complex": lambda weights: {k: v.to(torch.complex64) for k, v in weights.items()},
        "tiny": lambda weights: {k: v.float().to(torch.float8_e4m3fn) for k, v in weights.items()},
    }.items():
        yield Case(file, f"weights {what}", _with_weights(alter))
    file = next((run / "checkpoint").iterdir()).relative_to(run).as_posix()
    for path in (("learner",), ("learner", "model"), ("learner", "model", "fc.bias"), ("floats",)):
        for value in WRONG:
            yield Case(file, f"{'.'.join(path)} {value!r:.60}", _with_state(path, value))
    plain = [value for value in WRONG if value is not ABSENT and value not in ENDS]
    for value in [*plain, {"float": 10**400}, {"tensor": "x"}, {"dict": [[[], 1]]}, {"dict": 1}]:
        yield Case(file, f"state {value!r:.60}", _with_about({"format": FORMAT, "state": value}))
        yield Case(file, f"format {value!r:.60}", _with_about({"format": value}))


def change(path: Path, alter: Callable[[dict], object]) -> None:
    path.write_text(json.dumps(alter(json.loads(path.read_text()))))


def _with(content: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.write_bytes(content)

    return spoil


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _set(values: dict | list, key: object, value: object) -> None:
    if value is not ABSENT:
        values[key] = value
    elif key != "unknown":
        del values[key]


def _with_field(field: str, value: object) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        fields = json.loads(path.read_text())
        _set(fields, field, value)
        path.write_text(json.dumps(fields))

    return spoil


def _with_element(field: str, value: object) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        fields = json.loads(path.read_text())
        _set(fields[field], 3, value)
        path.write_text(json.dumps(fields))

    return spoil


def _table(lines: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def _with_cell(row: int, column: int, cell: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        lines = path.read_text().splitlines()
        cells = lines[row + 1].split(",")
        cells[column] = cell
        lines[row + 1] = ",".join(cells)
        path.write_text("\n".join(lines) + "\n")

    return spoil


def _with_seal(key: str | None, value: object) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            seal = json.loads(file.metadata()["sealed"])
        weights = dict(read_tensors(path)[0])
        if key is None:
            seal = value
        else:
            _set(seal, key, value)
        path.write_bytes(save(weights, {"sealed": json.dumps(seal)}))

    return spoil


def _with_weights(alter: Callable[[dict], dict]) -> Callable[[Path], None]:
    return lambda path: write_tensors(path, alter(dict(read_tensors(path)[0])))


def _with_state(place: tuple[str, ...], value: object) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        tensors, about = read_tensors(path)
        state = unpack(tensors, about["state"])
        inner = state
        for key in place[:-1]:
            inner = inner[key]
        _set(inner, place[-1], value)
        tensors, values = pack(state)
        write_tensors(path, tensors, about | {"state": values})

    return spoil


def _with_about(about: object) -> Callable[[Path], None]:
    return lambda path: write_tensors(path, {}, about)


class Watch:
    """Times one input after the other, and raises TimeoutError where one takes too long."""

    def __init__(self) -> None:
        self.slowest = 0.0  # in seconds

    @contextmanager
    def one(self) -> Iterator[None]:
        def over(*_: object) -> None:
            raise TimeoutError(f"no end after {SECONDS} s")

        before, began = signal.signal(signal.SIGALRM, over), time.monotonic()
        signal.alarm(SECONDS)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            self.slowest = max(self.slowest, time.monotonic() - began)


def fuzz_fields(
    top: Path, inputs: int, seed: int, opened: int = 1, watch: Watch | None = None
) -> Counter:
    """How many cases of each file ended how; of those that can be shown, each `opened`th is opened.

    `seed` chooses the cases, none twice before all were there; `watch` has the slowest one's time.
    """
    watch = watch or Watch()
    run, images = make_run(top / "run"), load_images("digits")
    whole, ends = read_records(run), Counter()
    every = cases(run)
    random.Random(seed).shuffle(every)
    chosen = islice(cycle(every), inputs)
    with mock.patch.object(load, "load_all", return_value=images):
        for i, case in enumerate(chosen):
            is_opened = not i % opened or case.file.endswith(".safetensors")
            state = ("running", "stopped", "finished")[i % 3]
            try:
                with spoiled(run, case), watch.one():
                    end = look(run, whole, state, is_opened)
            except BaseException:
                print(f"FOUND with {case.file}: {case.what}", file=sys.stderr)
                raise
            ends[case.file.split("/")[0], end] += 1
    return ends


def look(run: Path, whole: Records, state: page.State, is_opened: bool) -> str:
    """How everything that reads the run ends: whether it is refused, shown, or opened as well."""
    # What goes on from a checkpoint makes them again, so these are never an error.
    results_or_none(run), bounds_or_none(run), env_or_empty(run)
    try:
        records = read_records(run)
        show(records, whole, state)
        if not is_opened:
            return "shown"
        load.load_run(run, data="digits")
    except S11Error as error:
        return refused(str(error))
    return "opened"


def refused(message: str) -> str:
    assert message.isprintable(), message
    assert len(message) < 1_000, message
    return "refused"


def show(records: Records, whole: Records, state: page.State) -> None:
    """Its page, and the table and the page that show it beside a sound run."""
    text = page.write_page(Folder(records.path), records, state).read_text()
    assert "The page could not be made" not in text, text
    assert all(c.isprintable() or c == "\n" for c in text)
    groups = group_by_settings([records, replace(whole, path=records.path / "whole")])
    table = compare.format_table(groups)
    assert all(c.isprintable() or c == "\n" for c in table)
    text = write_comparison(records.path / "compare.html", groups).read_text()
    assert all(c.isprintable() or c == "\n" for c in text)


@contextmanager
def spoiled(run: Path, case: Case) -> Iterator[None]:
    """The run with one thing wrong; a checkpoint is looked at where there are no final weights."""
    file, hidden = run / case.file, run / "model.safetensors"
    before, weights = file.read_bytes(), hidden.read_bytes()
    if case.file.startswith("checkpoint"):
        hidden.unlink()
    case.spoil(file)
    try:
        yield
    finally:
        if file.is_dir():
            file.rmdir()
        hidden.write_bytes(weights)
        file.write_bytes(before)
