import html
import json
import os
import re
import shlex
import shutil
import signal
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import interpret
import pytest
import run
from fastai.test_utils import synth_learner
from helpers import BOUNDS, SMALL, luminance, read, stopped
from PIL import Image

from s11_fastai.cli import command_of, command_to_resume, run_flags
from s11_fastai.errors import Stopped
from s11_fastai.report import reference_log as reference
from s11_fastai.report.page import LivePage, write_page
from s11_fastai.report.pictures import PICTURES
from s11_fastai.runs.checkpoints import Checkpoints
from s11_fastai.runs.records import read_records
from s11_fastai.runs.settings import read_config
from s11_fastai.storage import Folder

CAPTIONS = {picture.name: picture.caption for picture in PICTURES if picture.caption}


class Page(HTMLParser):
    """What the tests ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(out) -> str:
    return (out / "report.html").read_text()


def test_it_opens_with_the_claim_and_its_conditions(finished):
    out, text, results = finished[0], page_of(finished[0]), read(finished[0] / "results.json")
    head = re.sub(r"<[^>]+>", "", text[text.index("<h1>") : text.index("<h2>")])
    for part in (
        f"{results['final_accuracy']:.2%} of the test images",
        "pets, seed 0, 3 epochs",
        "1,732 parameters",
        read(out / "env.json")["torch"],
        f"Best epoch: {results['best_epoch']} with {results['best_accuracy']:.2%}, chosen on the",
    ):
        assert part in head, part


def test_a_device_and_versions_that_are_not_known_are_not_spoken_of(finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "r")
    (out / "env.json").unlink()
    text = write_page(Folder(out), read_records(out)).read_text()
    (lead,) = re.findall(r'<p class="lead">(.*?)</p>', text, re.DOTALL)
    assert "fastai" not in lead
    assert "None" not in lead


def test_every_picture_is_inside_with_words_and_nothing_is_asked_for(finished):
    text = page_of(finished[0])
    pictures = Page(text).all("img")
    assert sorted(picture["alt"] for picture in pictures) == sorted(CAPTIONS.values())
    for picture in pictures:
        assert picture["src"].startswith("data:image/webp;base64,")
    # A picture's own letters may spell anything.
    words = re.sub(r"base64,[^\"]*", "", text).replace("http://www.w3.org/2000/svg", "")
    assert "http" not in words.replace("http-equiv", "")
    assert len(text) < 4_000_000


def test_headings_are_in_order_and_the_language_is_named(finished):
    page = Page(page_of(finished[0]))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert page.all("html")[0]["lang"] == "en"


def test_contrast_is_enough_in_light_and_dark(finished):
    """4.5 for text, WCAG 2.2, 1.4.3; on both grounds."""
    text = page_of(finished[0])
    blocks = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    palettes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", block)) for block in blocks]
    palettes = [colours for colours in palettes if "ink" in colours]
    assert len(palettes) >= 2
    for colours in palettes:
        colours = {
            k: c if len(c) == 7 else "#" + "".join(2 * x for x in c[1:]) for k, c in colours.items()
        }
        for ground in ("paper", "panel"):
            for ink in ("ink", "soft", "train", "valid", "reference", "rate", "level"):
                light, dark = sorted((luminance(colours[ground]), luminance(colours[ink])))[::-1]
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, ink)


def test_names_from_disk_are_escaped(finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "r")
    evil = "<script>alert(1)</script>"
    env = read(out / "env.json") | {"data": evil, evil: evil}
    (out / "env.json").write_text(json.dumps(env))
    (out / "config.json").write_text(json.dumps(read(out / "config.json") | {"data": f"'{evil}"}))
    text = write_page(Folder(out), read_records(out)).read_text()
    assert evil not in text
    assert "&lt;script&gt;alert(1)" in text


def commands_on(text: str) -> list[list[str]]:
    """The words of each command that the page shows."""
    shown = re.findall(r"<pre[^>]*><code>python experiments/run.py (.*)</code>", text)
    return [shlex.split(html.unescape(command)) for command in shown]


def test_the_command_makes_the_run_again_beside_it(finished, tmp_path):
    settings = read_config(finished[0])
    (words,) = commands_on(page_of(finished[0]))
    given, options = run_flags(words)
    assert given == settings
    assert options.out == finished[0].with_name("a-again")
    odd = replace(settings, data="/a b/c.tgz", lr_max=0.1234567890123, wd=1e-7)
    late = replace(settings, epochs=10, peak_epoch=5)  # which is the default's of 24 epochs
    for other in (odd, late, replace(settings, epochs=1, peak_epoch=None)):
        assert run_flags(shlex.split(command_of(other))[2:])[0] == other


def test_a_folder_that_was_given_as_a_dot_has_its_name_in_the_command(
    finished, tmp_path, monkeypatch
):
    monkeypatch.chdir(shutil.copytree(finished[0], tmp_path / "r"))
    (words,) = commands_on(write_page(Folder(Path()), read_records(Path())).read_text())
    assert run_flags(words)[1].out == tmp_path / "r-again"


def test_the_command_that_resumes_is_one_that_is_understood():
    _, given = run_flags(shlex.split(command_to_resume("a b"))[2:])
    assert (str(given.out), given.resume) == ("a b", True)


def test_the_target_and_the_reference_stand_beside_cifar10_alone(finished, tmp_path):
    assert "91.58%" not in page_of(finished[0])
    out = shutil.copytree(finished[0], tmp_path / "r")
    for name, note in (("CIFAR-10", False), ("CIFAR-10, JPEG q75 copy", True)):
        (out / "env.json").write_text(json.dumps(read(out / "env.json") | {"data": name}))
        text = write_page(Folder(out), read_records(out)).read_text()
        assert "target is 90.00%" in text
        assert "reached 91.58%" in text
        assert ("another copy" in text) == note
        assert 'id="overlay"' in text
    assert len(reference.LR) == len(reference.TEST_ACCURACY) == len(reference.TRAIN_ACCURACY) == 24


def test_during_the_run_it_shows_where_it_stands_and_after_a_stop_that_it_stopped(
    pets, tmp_path, monkeypatch
):
    states = []

    def noted(folder, records, state="finished"):
        path = write_page(folder, records, state)
        states.append((state, re.findall(r"(\d) of 3 epochs are over", path.read_text())))
        return path

    monkeypatch.setattr("s11_fastai.report.page.write_page", noted)
    argv = ["--data", str(pets), *SMALL, *BOUNDS]
    out = tmp_path / "r"
    stopped(argv, out, 8)
    assert states == [("running", ["0"]), ("running", ["1"]), ("stopped", [])]
    text = page_of(out)
    assert 'data-state="stopped"' in text
    assert "Stopped after 1 of 3 epochs" in text
    assert run_flags(commands_on(text)[0])[1][:2] == (out, True)
    run.main(["--out", str(out), "--resume"])
    assert states[3:-1] == [("running", [str(n)]) for n in (1, 2, 3)]
    assert 'data-state="finished"' in page_of(out)


def test_a_stop_after_the_results_leaves_the_page_of_a_finished_run(argv, tmp_path, monkeypatch):
    def stop(_):
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "remove", stop)
    with pytest.raises(SystemExit) as end:
        run.main([str(word) for word in argv])
    assert end.value.code == 128 + signal.SIGTERM
    assert 'data-state="finished"' in page_of(tmp_path / "r")


def test_a_run_that_stopped_before_its_first_epoch_says_so(pets, tmp_path, capsys):
    out = tmp_path / "r"
    stopped(["--data", str(pets), *SMALL, *BOUNDS], out, 2)
    interpret.main([str(out)])
    assert "\nno epoch is over yet; the page is " in capsys.readouterr().out
    text = page_of(out)
    assert "No epoch is over yet" in text
    assert "Stopped after 0 of 3 epochs" in text


def test_a_run_that_diverged_says_why_and_does_not_offer_to_resume(pets, tmp_path, capsys):
    out = tmp_path / "r"
    argv = ["--data", str(pets), *SMALL, "--lr-min", "1", "--lr-max", "1e5", "--out", str(out)]
    with pytest.raises(SystemExit) as stop:
        run.main(argv)
    assert stop.value.code == 3
    for _ in range(2):
        text = page_of(out)
        assert 'data-state="diverged"' in text
        assert re.search(r"Diverged after \d of 3 epochs: the loss became (nan|inf) in ", text)
        assert "begin again with a lower --lr-max" in text
        assert [run_flags(words)[1].resume for words in commands_on(text)] == [False]
        interpret.main([str(out)])  # makes the page again, from the folder


def test_a_run_that_goes_on_is_not_called_diverged_any_more(pets, tmp_path):
    out = tmp_path / "r"
    argv = ["--data", str(pets), *SMALL, *BOUNDS]
    stopped(argv, out, 8)
    (out / "diverged.json").write_text('{"why": "the loss became nan"}')
    stopped(argv, out, 4)
    assert not (out / "diverged.json").exists()
    assert 'data-state="stopped"' in page_of(out)


def test_pictures_of_other_weights_than_the_headlines_say_so(finished, tmp_path, capsys):
    out = shutil.copytree(finished[0], tmp_path / "r")
    right = round(read(out / "results.json")["final_accuracy"] * 20)
    assert f">Of the weights after the last epoch, 3: {right} of 20 test images" in page_of(out)
    interpret.main([str(out), "--weights", "best"])
    best = read_records(out).best
    text = re.sub(r"</?strong>", "", page_of(out))
    right = round(best.valid_accuracy * 20)
    assert (
        f"Not of the accuracy above: of the weights of the best epoch, {best.epoch}: {right} of 20"
    ) in text


def test_a_run_that_stopped_at_its_last_pictures_has_final_weights(finished, tmp_path, capsys):
    out = shutil.copytree(finished[0], tmp_path / "r")
    right = round(read(out / "results.json")["final_accuracy"] * 20)
    (out / "results.json").unlink()
    interpret.main([str(out)])
    text = re.sub(r"</?strong>", "", page_of(out))
    assert f"f the weights after the last epoch, 3: {right} of 20 test images" in text


def test_pictures_of_a_run_that_has_gone_on_say_of_which_epoch_they_are(undisturbed, tmp_path):
    out, argv = tmp_path / "r", undisturbed[2]

    def page_says_so() -> bool:
        words = "of the weights of a checkpoint in epoch 2: "
        return words in re.sub("</?strong>", "", page_of(out))

    stopped(argv, out, 7)
    interpret.main([str(out)])
    assert page_says_so()
    stopped(argv, out, 7)
    assert len(read_records(out).history) == 2
    assert page_says_so()


def test_what_is_drawn_is_there_as_text_too(finished):
    text = re.sub(r"<[^>]+>", " ", page_of(finished[0]))
    for words in (
        "layer1 2 x 16 x 16 104",  # of the network
        "in all 1,732",
        "cat 10",  # of the classes
        "history.csv (a row an epoch)",
    ):
        assert words in re.sub(r"\s+", " ", text), words


def test_links_lead_to_files_beside_the_page(finished):
    page = Page(page_of(finished[0]))
    links = [link["href"] for link in page.all("a")]
    files = [link for link in links if not link.startswith("#")]
    assert len(files) == 11
    assert all((finished[0] / file).exists() for file in files)
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {link[1:] for link in links if link.startswith("#")} <= ids


def test_a_pipe_and_a_picture_that_is_huge_are_neither_waited_for_nor_decoded(finished, tmp_path):
    """Both can come with a stranger's run: the picture's file has 50 KB."""
    out = shutil.copytree(finished[0], tmp_path / "r")
    (out / "figures/gradcam.png").unlink()
    os.mkfifo(out / "figures/gradcam.png")
    Image.new("1", (8_000, 8_000)).save(out / "figures/confusion.png")
    text = write_page(Folder(out), read_records(out)).read_text()
    assert "gradcam.png (it is missing or damaged); confusion.png (it is missing" in text


def test_a_missing_or_damaged_picture_is_left_out_and_named(finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "r")
    (out / "figures/gradcam.png").unlink()
    (out / "figures/confusion.png").write_bytes(b"nothing")
    text = write_page(Folder(out), read_records(out)).read_text()
    assert len(Page(text).all("img")) == len(CAPTIONS) - 2
    assert "gradcam.png (it is missing or damaged); confusion.png (it is missing" in text
    text = write_page(
        Folder(out), read_records(out), "running"
    ).read_text()  # in which pictures are still to come
    assert "gradcam.png" not in text
    assert "confusion.png (it is missing or damaged)" in text


def test_interpret_makes_everything_again(finished, tmp_path, capsys):
    out = shutil.copytree(finished[0], tmp_path / "r")
    pictures = {p.name: p.read_bytes() for p in (out / "figures").iterdir()}
    shutil.rmtree(out / "figures")
    (out / "report.html").unlink()
    interpret.main([str(out)])
    assert {p.name: p.read_bytes() for p in (out / "figures").iterdir()} == pictures
    assert "the page is" in capsys.readouterr().out
    for argv, says in (
        ([str(tmp_path)], "holds no run"),
        ([str(out), "--data", "digits"], "fingerprint"),
    ):
        with pytest.raises(SystemExit) as stop:
            interpret.main(argv)
        assert stop.value.code == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert says in said


def test_a_page_needs_no_file_of_the_records(finished, tmp_path):
    records = replace(read_records(finished[0]), path=tmp_path)
    text = write_page(Folder(tmp_path), records).read_text()
    assert f"{records.results['final_accuracy']:.2%}" in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def nan_loss(records):
    rows = [row._replace(valid_loss=float("nan")) for row in records.history]
    return replace(records, history=rows)


def no_steps(records):
    return replace(records, steps=[])


@pytest.mark.parametrize(
    ("damage", "says"),
    [(nan_loss, "the curve loss (a value is NaN or infinite)"), (no_steps, "the curve schedule (")],
    ids=["nan", "no steps"],
)
def test_a_curve_that_cannot_be_drawn_is_left_out_and_named(finished, tmp_path, damage, says):
    records = replace(damage(read_records(finished[0])), path=tmp_path)
    text = write_page(Folder(tmp_path), records, "stopped").read_text()
    (left_out,) = re.findall(r'<p id="left-out">(.*)</p>', text)
    assert says in left_out
    assert text.count('class="chart"') == 6 - len(re.findall("the curve", left_out))
    assert "left-out" not in page_of(finished[0])


def test_records_of_which_no_page_can_be_made_are_no_error(finished, tmp_path):
    records = replace(read_records(finished[0]), path=tmp_path, env={"data": 7}, results={1: "<b>"})
    text = write_page(Folder(tmp_path), records, "running").read_text()
    assert "The page could not be made" in text
    assert "<b>" not in text
    assert 'http-equiv="refresh"' in text


def test_the_live_page_is_written_at_the_beginning_and_after_each_epoch(finished, tmp_path):
    records, said = replace(read_records(finished[0]), path=tmp_path, results=None), []

    def so_far():
        if (tmp_path / "report.html").exists():
            said.append(re.search(r"(\d) of 3 epochs are over", page_of(tmp_path)).group())
        return replace(records, history=records.history[: len(said)])

    fit(LivePage(Folder(tmp_path), so_far), epochs=2)
    assert said == ["0 of 3 epochs are over", "1 of 3 epochs are over"]
    assert 'data-state="running"' in page_of(tmp_path)
    assert "2 of 3 epochs are over" in page_of(tmp_path)


def test_the_live_page_ends_a_fit_for_an_oserror_alone(tmp_path, finished, caplog):
    def no_records():
        raise ZeroDivisionError("nothing there")

    fit(LivePage(Folder(tmp_path), no_records), epochs=2)
    assert [record.getMessage() for record in caplog.records] == 3 * [
        "the page was not written: nothing there"
    ]
    (tmp_path / "file").write_text("in the way")
    records = read_records(finished[0])
    with pytest.raises(OSError, match="file"):
        fit(LivePage(Folder(tmp_path / "file"), lambda: records), epochs=1)


def fit(page: LivePage, epochs: int) -> None:
    """Train something small that is none of ours."""
    learn = synth_learner()
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, cbs=page)
