import html
import json
import math
import os
import re
from dataclasses import replace
from itertools import combinations
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from helpers import ROOT, luminance

from s11_fastai.errors import S11Error
from s11_fastai.report.comparison import (
    compared,
    curves_of_groups,
    kind_of,
    strips_of,
    write_comparison,
)
from s11_fastai.report.groups import Group, group_by_settings
from s11_fastai.runs.records import read_records

CSS = (ROOT / "s11_fastai/report/templates/comparison.css").read_text()
GROUNDS = ("#ffffff", "#f5f6f8"), ("#16181c", "#1f2227")


@pytest.fixture
def run(finished, tmp_path):
    """Make the records of a run: a name, accuracies and losses of its epochs, and settings."""
    records = read_records(finished[0])

    def make(name, accuracies=(0.5,), losses=None, **settings):
        losses = losses or [1 - accuracy for accuracy in accuracies]
        row = records.history[0]
        history = [
            row._replace(epoch=i, valid_accuracy=accuracy, valid_loss=loss)
            for i, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), 1)
        ]
        changed = replace(records.settings, **settings)
        return replace(records, path=tmp_path / name, settings=changed, history=history)

    return make


@pytest.fixture
def page(tmp_path):
    def write(*runs, out="c.html") -> str:
        return write_comparison(tmp_path / out, group_by_settings(runs)).read_text()

    return write


def drawn(text: str) -> dict[str, dict]:
    """The data of each curve, by its name."""
    found = re.findall(
        r'id="chart-(\w+)".*?<script type="application/json">(.*?)</script>', text, re.S
    )
    return {name: json.loads(html.unescape(data)) for name, data in found}


def cells(text: str, table: str) -> list[list[str]]:
    """The words of a table, row by row."""
    (body,) = re.findall(rf'aria-label="{table}">(.*?)</table>', text, re.S)
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
    return [
        [
            " ".join(re.sub(r"<[^>]+>", "", cell).split())
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
        ]
        for row in rows
    ]


def test_a_group_is_its_mean_with_every_seed_beside_it(run, page):
    text = page(
        run("s0", (0.3, 0.5)), run("s1", (0.5, 0.9), seed=1), run("other", (0.4, 0.6), wd=0.1)
    )
    joined, alone = drawn(text)["accuracy"]["lines"]
    assert (joined["name"], joined["x"], joined["y"]) == ("A", [1, 2], [40, 70])
    assert joined["runs"] == [[30, 50], [50, 90]]
    assert joined["deviation"] == pytest.approx([14.1421, 28.2843])
    assert (alone["y"], "runs" in alone) == ([40, 60], False)
    assert drawn(text)["error"]["lines"][0]["y"] == [60, 30]
    assert drawn(text)["error"]["y"]["log"]
    _, first, second = cells(text, "Table of groups")
    assert first[:4] == ["A s0, 2 seeds", "2", "2 of 3", "70.00 ± 28.28"]
    assert second[:4] == ["B other", "1", "2 of 3", "60.00"]
    assert [row[:4] for row in cells(text, "Table of runs")[1:]] == [
        ["A s0", "0", "2 of 3", "50.00"],
        ["A s1", "1", "2 of 3", "90.00"],
        ["B other", "0", "2 of 3", "60.00"],
    ]
    assert cells(text, "Table of settings that differ") == [
        ["setting", "A s0, 2 seeds", "B other"],
        ["wd", "0.0005", "0.1"],
    ]


def test_runs_without_further_seeds_need_no_table_of_groups(run, page):
    text = page(run("a"), run("b", wd=0.1))
    assert "<h1>2 runs</h1>" in text
    assert "Table of groups" not in text
    assert "±" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert "None but those in the tables" in page(run("a"), run("b"))
    assert "Settings that differ" not in page(run("a"))


def test_it_asks_for_nothing_and_stays_below_four_megabytes(run, page):
    """Of a hundred runs of 24 epochs, of more steps than fit, and of ten of very many epochs."""
    step, accuracies = run("x").steps[0], np.linspace(0.1, 0.9, 24).tolist()
    steps = [step._replace(step=i, lr=0.1 + i / 1e6) for i in range(24 * 98)]
    runs = [
        replace(
            run(f"r{i}", accuracies, seed=i % 10, epochs=24, peak_epoch=5, bs=1 + i // 10),
            steps=[each._replace(lr=each.lr + i) for each in steps],
        )
        for i in range(100)
    ]
    long = np.linspace(0.1, 0.9, 30_000).tolist()
    many = run("m", long, epochs=30_000, peak_epoch=5)
    ten = [
        replace(many, path=many.path / str(i), settings=replace(many.settings, bs=1 + i))
        for i in range(10)
    ]
    for text in (page(*runs), page(*ten)):
        assert len(text) < 4_000_000
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(
            r"(src|url\(|@import)", re.sub(r"<script.*?</script>", "", text, flags=re.S)
        )
        for data in drawn(text).values():
            assert all(len(line["x"]) == len(line["y"]) > 20 for line in data["lines"])


def test_names_of_folders_are_escaped_and_printable(run, page):
    evil = "<script>alert(1)<b>"
    text = page(run(f"{evil}\x1b[2J"), run(os.fsdecode(b"caf\xe9 \n"), wd=0.1))
    assert evil not in text
    assert "&lt;script&gt;alert(1)&lt;b&gt;\\x1b[2J" in text
    assert "caf\\udce9" in text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_links_lead_to_the_pages_of_the_runs_that_have_one(run, page, tmp_path):
    names = ["a b#1", os.fsdecode(b"caf\xe9"), "x:y", "without"]
    runs = [run(name, seed=i) for i, name in enumerate(names)]
    for each in runs[:-1]:
        each.path.mkdir()
        (each.path / "report.html").write_text(each.path.name.encode(errors="replace").decode())
    for out in ("c.html", "deep/er/c.html"):
        links = re.findall(r'<a href="([^"]*)"', page(*runs, out=out))
        assert len(links) == 3
        for link, each in zip(links, runs, strict=False):
            assert ":" not in link
            there = (tmp_path / out).parent / os.fsdecode(unquote_to_bytes(link))
            assert there.samefile(each.path / "report.html")


def test_values_that_are_no_numbers_are_left_out_and_told(run, page):
    nan, inf = float("nan"), float("inf")
    text = page(
        run("a", (0.1, 0.2, 0.3, 0.4), (3, inf, 2, 1)),
        run("b", (0.1, 0.2, 0.3), (3, 2, 1), wd=0.1),
        run("c", (0.1, 0.2, 0.3), (nan, nan, nan), wd=0.2),
    )
    loss = drawn(text)["loss"]["lines"]
    assert [(line["name"], line["x"]) for line in loss] == [("A", [3, 4]), ("B", [1, 2, 3])]
    assert text.count("Not every value of A, C is finite: the longest stretch that is") == 1
    assert 'id="left-out"' not in text
    text = page(run("c", (0.1, 0.2), (nan, nan)))
    assert "loss" not in drawn(text)
    assert "for lack of finite values: loss." in text


def test_losses_of_other_label_smoothing_are_said_to_be_others(run, page):
    words = "Losses with different label smoothing are not to be compared."
    assert words not in page(run("a"), run("b", wd=0.1))
    text = page(run("a"), run("b", label_smoothing=0.0), run("c", losses=(math.nan,), wd=0.1))
    assert f"{words} Not every value of C is finite" in text


def test_a_run_that_diverged_or_has_no_epoch_yet_is_called_so(run, page):
    begun, diverged = run("a", (), wd=0.1), replace(run("b"), results=None)
    diverged.path.mkdir()
    (diverged.path / "diverged.json").write_text(json.dumps({"why": "the loss became nan"}))
    text = page(begun, diverged)
    assert [row[2:4] for row in cells(text, "Table of runs")[1:]] == [
        ["0 of 3", "-"],
        ["1 of 3, diverged", "50.00"],
    ]
    assert [line["name"] for line in drawn(text)["accuracy"]["lines"]] == ["B"]


def test_learning_rates_are_drawn_where_they_differ(run):
    one, same = run("a"), run("b", wd=0.1)
    assert "schedule" in curves_of_groups(group_by_settings([one]))
    assert "schedule" not in curves_of_groups(group_by_settings([one, same]))
    other = replace(same, steps=[step._replace(lr=2 * step.lr) for step in same.steps])
    first, second = curves_of_groups(group_by_settings([one, other]))["schedule"].lines.values()
    assert list(second.y) == pytest.approx(2 * np.asarray(first.y))
    assert first.x[0] == 0
    assert first.x[-1] == pytest.approx(1 - 1 / len(one.steps))
    without = [replace(each, steps=[]) for each in (one, other)]
    assert curves_of_groups(group_by_settings(without)).get("schedule") is None


def test_curves_are_as_long_as_the_shortest_run(run):
    begun = Group("B", "b", (run("b", ()),))
    found = compared([Group("A", "a", (run("a", (0.1, 0.2, 0.3)), run("c", (0.5, 0.7)))), begun])
    assert list(found) == ["A"]
    name, accuracies, losses = found["A"]
    assert name == "A  a"
    assert accuracies == pytest.approx(np.array([[10, 20], [50, 70]]))
    assert losses == pytest.approx(np.array([[0.9, 0.8], [0.5, 0.3]]))


def test_without_an_epoch_there_is_nothing_to_draw(run, page, tmp_path):
    with pytest.raises(S11Error, match="no epoch of these runs is over"):
        page(run("a", ()))
    assert not list(tmp_path.iterdir())


def test_final_accuracies_stand_on_one_axis(run):
    groups = group_by_settings(
        [run("a", (0.4,)), run("b", (0.6,), seed=1), run("c", (0.5,), wd=0.1), run("d", (), wd=0.2)]
    )
    strips, ticks = strips_of(groups)
    assert list(strips) == ["A", "B"]
    joined, alone = strips["A"], strips["B"]
    assert joined.mean == alone.points[0] == 50
    assert alone.reach == []
    low, high = joined.points
    below, above = joined.reach
    assert 0 < below < low < 50 < high < above < 100
    assert (above - 50) / (high - 50) == pytest.approx(2**0.5, rel=0.01)
    assert len(ticks) >= 3
    for words, place in ticks:  # the points are at 40 and 60 percent
        assert place == pytest.approx(50 + (high - low) * (float(words) - 50) / 20, abs=0.1)
    only, _ = strips_of(groups[1:2])
    assert only["B"].points == [50]


def palettes() -> list[list[str]]:
    """The ten colours in the light, as on paper, and on a dark screen."""
    found = [
        re.findall(r"--c\d: (#\w{6})", block) for block in re.findall(r":root \{(.*?)\}", CSS, re.S)
    ]
    assert [len(colours) for colours in found] == [10, 10]
    assert re.findall(r"@media ([^{]*) \{", CSS)[0] == "screen and (prefers-color-scheme: dark)"
    return found


def lab(colour: str) -> np.ndarray:
    """CIE L*a*b* of an sRGB colour, D65."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(to_xyz @ linear / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_ten_groups_can_be_told_apart_by_colour_and_without():
    for colours, grounds in zip(palettes(), GROUNDS, strict=True):
        for one, other in combinations(colours, 2):  # 2.3 can just be noticed
            assert np.linalg.norm(lab(one) - lab(other)) > 25, (one, other)
        for ground in grounds:  # 3 for what is drawn, WCAG 2.2, 1.4.11
            for colour in colours:
                light, dark = sorted((luminance(ground), luminance(colour)))[::-1]
                assert (light + 0.05) / (dark + 0.05) >= 3, (ground, colour)
    dashes = re.findall(r"\.line\.d(\d) \{ stroke-dasharray: ([^;]+);", CSS)
    assert [int(number) for number, _ in dashes] == list(range(1, 10))  # the first is solid
    assert len({dash for _, dash in dashes}) == 9


def test_no_two_groups_have_colour_and_dashes_alike():
    kinds = [kind_of(i, Group(f"G{i}", "", ())).split()[1:3] for i in range(100)]
    assert len({tuple(kind) for kind in kinds}) == 100
    assert len({colour for colour, _ in kinds[:10]}) == len({dash for _, dash in kinds[:10]}) == 10
