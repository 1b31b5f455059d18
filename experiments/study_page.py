"""The rows of the studies as one page: what each change was worth, and what is not settled."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.stats import t as student_t
from study_rows import read_rows
from study_table import read_table, words_of

from s11_fastai.errors import S11Error
from s11_fastai.plots import encoded, plot_peaks
from s11_fastai.report.groups import mean_and_std
from s11_fastai.storage import write_atomically
from s11_fastai.streams import say

ENOUGH_SEEDS = 3
_LR_FLAGS = {"--lr-max", "--lr-min"}
HEAD = """# Study

What single changes are worth. Choices are made on held-out training images; only the tables whose
names begin with "final" are of the test images, by which nothing is chosen. This page is made from
the rows beside it by `python experiments/study.py`, whose tables say which settings each variant
has. Accuracies are those of the last epoch in percent, mean and standard deviation over the seeds;
those of the training images, a mean, are of the augmented images while the last epoch went on. A
difference is the mean over the seeds for which both variants have an accuracy, in whatever
precision they were trained. It is settled if at least three seeds have it, it is larger than one
evaluated image, and its 95% confidence interval (Student's t) excludes zero: with three seeds, if
it is larger than 2.5 times its deviation.
"""


class Variant(NamedTuple):
    """One line of a table: its name, its flags but for the seed, and the row of each seed."""

    name: str
    flags: dict[str, str]
    rows: dict[str, dict[str, str]]

    @property
    def key(self) -> str:
        """By what a variant is known, whatever its table called it when it was run: its flags."""
        return shlex.join(word for flag in self.flags.items() for word in flag)

    @property
    def accuracies(self) -> dict[str, float]:
        """In percent, by seed; runs that diverged have none."""
        return {seed: 100 * value for seed, value in self._values("final_accuracy").items()}

    @property
    def fit(self) -> float | None:
        """The mean accuracy on the training images, in percent; None where no run has one."""
        found = self._values("train_accuracy").values()
        return 100 * fmean(found) if found else None

    @property
    def peaks(self) -> dict[str, float]:
        """The lr at the peak of each run, by seed."""
        return self._values("lr_max")

    @property
    def finds_its_peak(self) -> bool:
        """Whether that is from each run's range test."""
        return not {"--lr-max", "--recipe"} & self.flags.keys()

    @property
    def images(self) -> int:
        """How many images each run was evaluated on, those of CIFAR-10's test where none says."""
        said = [row.get("images") for row in self.rows.values()]
        return int(next(filter(None, said), "") or self.flags.get("--holdout") or 0) or 10_000

    def _values(self, column: str) -> dict[str, float]:
        return {seed: float(row[column]) for seed, row in self.rows.items() if row[column]}


def write_page(results: Path, *folders: Path) -> Path:
    """Write `README.md` beside the rows, and a picture of each grid of peaks; returns the page.

    The table of some rows lies in the first of the folders that has it. Rows that cannot be read
    are left out, which the page says.
    """
    parts = [HEAD]
    for path in sorted(results.glob("*.csv")):
        try:
            variants = read_variants(path)
        except (S11Error, OSError) as error:
            say(f"left out of the page: {error}")
            parts.append(f"## {title(path)}\n\nLeft out, as `{path.name}` cannot be read.\n")
            continue
        if not variants:
            continue
        tables = [folder / f"{path.stem}.ini" for folder in folders]
        words, names = described(next(filter(Path.exists, tables), tables[0]))
        order = list(names)
        variants.sort(key=lambda each: order.index(each.key) if each.key in names else len(order))
        variants = [each._replace(name=names.get(each.key, each.name)) for each in variants]
        picture = draw_grid(variants, path.with_suffix(".png"))
        there = {each.key for each in variants}
        not_run = [name for key, name in names.items() if key not in there]
        parts.append(section(path, words, variants, picture, not_run))
    page = results / "README.md"
    write_atomically(page, "\n".join(parts))
    return page


def read_variants(path: Path) -> list[Variant]:
    """The variants of a file of rows, in the order of their first rows."""
    variants: dict[str, Variant] = {}
    for row in read_rows(path):
        words = shlex.split(row["flags"])
        flags = dict(zip(words[::2], words[1::2], strict=True))
        own = variants.setdefault(row["flags"], Variant(row["variant"], flags, {}))
        own.rows[row["seed"]] = row
    return list(variants.values())


def title(path: Path) -> str:
    """What the page calls a file of rows."""
    return path.stem.replace("-", " ").capitalize()


def described(table: Path) -> tuple[str, dict[str, str]]:
    """What a table says of itself, and its variants' names by their flags, in the table's order;
    nothing where there is none."""
    try:
        names = {job.key: job.variant for job in read_table(table)}
        return words_of(table), names
    except FileNotFoundError:
        pass
    except (S11Error, OSError) as error:
        say(f"the page does without {table.name}: {error}")
    return "", {}


def section(
    path: Path,
    words: str,
    variants: Sequence[Variant],
    picture: Path | None,
    not_run: Sequence[str],
) -> str:
    """A table, with what all its runs share in a line above it, and what it lacks below."""
    first, *others = variants
    shared, epochs = shared_flags(variants), either(variants, "epochs")
    flags = f"; `{' '.join(f'{k} {v}' for k, v in shared.items())}`" if shared else ""
    lines = [
        f"## {title(path)}\n",
        f"{words}\n" if words else "",
        f"{either(variants, 'data')}, {either(variants, 'evaluated_on')} images, "
        f"{epochs} epoch{'s' * (epochs != '1')}, {either(variants, 'precision')}{flags}. "
        f"Rows: [`{path.name}`]({path.name}).\n",
        "| variant | its own settings | seeds | training, % | accuracy, % "
        "| against the first, points |",
        "|---|---|---|---|---|---|",
        table_line(first, shared, None),
        *(table_line(variant, shared, first) for variant in others),
    ]
    if picture:
        lines.append(f"\n![Accuracy of each peak]({picture.name})")
    if found := [peaks_line(each) for each in variants if each.finds_its_peak and each.peaks]:
        lines.append(f"\nLRMAX by the range test: {'; '.join(found)}.")
    one_image = 100 / first.images
    if open_ := [v.name for v in others if not is_settled(differences(v, first), one_image)]:
        lines.append(f"\nNot settled: {'; '.join(open_)}.")
    if not_run:
        lines.append(f"\nNot run: {'; '.join(not_run)}.")
    return "\n".join(line for line in lines if line) + "\n"


def either(variants: Sequence[Variant], column: str) -> str:
    """All values of a column; runs that diverged, which ended early, count only without others."""
    rows = [row for variant in variants for row in variant.rows.values()]
    finished = [row for row in rows if row["final_accuracy"]]
    return " or ".join(sorted({row[column] for row in finished or rows}))


def differences(variant: Variant, first: Variant) -> list[float]:
    """Points of accuracy by which a variant is above the first, of each seed that both have."""
    ours, theirs = variant.accuracies, first.accuracies
    return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]


def is_settled(values: Sequence[float], one_image: float) -> bool:
    """Whether these differences, in points as `one_image` is, tell two variants apart."""
    n = len(values)
    if n < ENOUGH_SEEDS:
        return False
    margin = float(student_t.ppf(0.975, n - 1)) * stdev(values) / n**0.5
    return round(abs(fmean(values)), 6) > max(margin, round(one_image, 6))


def shared_flags(variants: Sequence[Variant]) -> dict[str, str]:
    """The flags that all variants have alike."""
    first, *others = (set(variant.flags.items()) for variant in variants)
    return dict(sorted(first.intersection(*others)))


def table_line(variant: Variant, shared: dict[str, str], first: Variant | None) -> str:
    own = " ".join(f"{k} {v}" for k, v in variant.flags.items() if shared.get(k) != v)
    found = variant.accuracies
    diverged = len(variant.rows) - len(found)
    seeds = f"{len(variant.rows)}" + (f", {diverged} diverged" if diverged else "")
    against = mean_and_std(differences(variant, first), "+.2f") if first else ""
    fit = "" if variant.fit is None else f"{variant.fit:.2f}"
    accuracy = mean_and_std(list(found.values()), ".2f")
    settings = f"`{own}`" if own else ""
    return f"| {variant.name} | {settings} | {seeds} | {fit} | {accuracy} | {against} |"


def peaks_line(variant: Variant) -> str:
    """The peaks that a variant's runs have found, mean and spread."""
    peaks = list(variant.peaks.values())
    said = f"{variant.name} {mean_and_std(peaks, '.3f')}"
    if len(peaks) == 1:
        return f"{said}, one seed"
    return f"{said}, a spread of {stdev(peaks) / fmean(peaks):.0%} over {len(peaks)} seeds"


def draw_grid(variants: Sequence[Variant], path: Path) -> Path | None:
    """Draw the accuracies over the peaks where the variants differ in nothing but the bounds, and
    no two have one peak.

    The peaks that range tests have found are marked.
    """
    fixed = [{k: v for k, v in each.flags.items() if k not in _LR_FLAGS} for each in variants]
    given = [v for v in variants if not v.finds_its_peak and v.accuracies and v.peaks]
    accuracies = {next(iter(v.peaks.values())): list(v.accuracies.values()) for v in given}
    if any(flags != fixed[0] for flags in fixed) or not 3 <= len(accuracies) == len(given):
        return None
    finders = [each for each in variants if each.finds_its_peak]
    found = [(v.peaks[s], y) for v in finders for s, y in v.accuracies.items() if s in v.peaks]
    figure = plot_peaks(accuracies, found, either(variants, "evaluated_on"))
    write_atomically(path, encoded(figure, path))
    return path
