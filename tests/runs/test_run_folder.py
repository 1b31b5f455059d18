"""Nothing that a run writes leaves its folder, or lands in one that is another's by now."""

import shutil
from pathlib import Path

import interpret
import pytest
import run
from helpers import compare, stopped
from matplotlib.figure import Figure

from s11_fastai import load_run
from s11_fastai.errors import S11Error
from s11_fastai.report import pictures
from s11_fastai.runs.checkpoints import Checkpoints
from s11_fastai.runs.lock import locked
from s11_fastai.storage import Folder, sweep

pytestmark = pytest.mark.usefixtures("fewer_pictures")


def contents(top: Path) -> dict:
    return {path: path.read_bytes() for path in top.rglob("*") if path.is_file()}


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of somebody's own, with something in it."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "precious").write_text("mine")
    (place / ".mine.part").write_text("mine")
    return place


@pytest.fixture
def few_pictures(monkeypatch):
    """A tiny one of each kind in place of all."""
    few = [p for p in pictures.PICTURES if p.name in ("samples", "loss")]
    tiny = [p.__class__(p.name, p.source, lambda _: Figure((1, 1)), p.caption) for p in few]
    monkeypatch.setattr(pictures, "PICTURES", tuple(tiny))


@pytest.fixture
def half(undisturbed, tmp_path):
    """A run that was stopped in its second epoch."""
    stopped(undisturbed[2], tmp_path / "half", 8)
    return tmp_path / "half"


@pytest.mark.parametrize(
    ("name", "main"),
    [
        ("figures", lambda out: interpret.main([str(out)])),
        ("figures", lambda out: run.main(["--out", str(out), "--resume"])),
        ("checkpoint", lambda out: run.main(["--out", str(out), "--resume"])),
    ],
)
def test_a_folder_in_it_that_is_a_link_is_refused(half, elsewhere, capsys, name, main):
    for file in (half / "checkpoint").iterdir():  # so that there is something to go on from
        shutil.copy(file, elsewhere)
    before = contents(elsewhere)
    shutil.rmtree(half / name)
    (half / name).symlink_to(elsewhere)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(half)
    assert stop.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{half / name} is a link" in said
    assert contents(elsewhere) == before


def test_a_file_in_it_that_is_a_link_is_replaced(undisturbed, half, elsewhere, few_pictures):
    precious = elsewhere / "precious"
    for name in ("report.html", "figures/samples.png", "figures/loss.png", ".pid"):
        (half / name).unlink(missing_ok=True)
        (half / name).symlink_to(precious)
    interpret.main([str(half)])
    assert contents(elsewhere)[precious] == b"mine"
    again = ("history.csv", "steps.csv", "best.safetensors", "lr_bounds.json", "env.json")
    after = ("model.safetensors", "results.json")
    for name in ("report.html", "figures/samples.png", ".pid", *again, *after):
        (half / name).unlink(missing_ok=True)
        (half / name).symlink_to(precious)
    (half / "checkpoint/epoch-000002-batch-000000.safetensors").symlink_to(precious)
    run.main(["--out", str(half), "--resume"])
    assert contents(elsewhere)[precious] == b"mine"
    assert not any(path.is_symlink() for path in half.rglob("*"))
    assert {name for name in compare(undisturbed[0], half) if "figures" not in name} == set()


def test_halves_behind_a_link_are_not_swept(tmp_path, elsewhere):
    (tmp_path / "r").mkdir()
    (tmp_path / "r/figures").symlink_to(elsewhere)
    sweep(tmp_path / "r", older_than=0)
    assert (elsewhere / ".mine.part").exists()


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize(
    "name", ["samples.png", "history.csv", "loss.png", "report.html", "results.json"]
)
def test_a_folder_that_was_removed_or_taken_over_is_not_written_to(
    argv, few_pictures, monkeypatch, capsys, name, anew
):
    """`anew`: another run has begun there by then."""
    out, write, gone = argv[3], Folder.write, []

    def other_run():
        with locked(out) as folder:
            folder.write("config.json", "{}")

    def just_before(self, file, data):
        if file == name and self.path.is_relative_to(out) and not gone:
            gone.append(file)
            shutil.rmtree(out)
            if anew:
                other_run()
        return write(self, file, data)

    monkeypatch.setattr(Folder, "write", just_before)
    with pytest.raises(SystemExit) as stop:
        run.main([str(a) for a in argv])
    assert stop.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "was moved or removed" in said
    assert {p.name for p in out.rglob("*")} == ({"config.json", ".lock"} if anew else set())


def test_each_way_of_writing_asks_first(tmp_path):
    class Gone(Folder):
        def check(self):
            raise S11Error("gone")

    folder = Gone(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/epoch-000000-batch-000000.safetensors").touch()
    before = sorted(tmp_path.rglob("*"))
    for place in (folder, folder.sub("sub"), folder.sub("sub").sub("deeper")):
        checkpoints = Checkpoints(place)
        for change in (
            lambda place=place: place.write("a", b""),
            lambda place=place: place.write_json("a", {}),
            lambda place=place: place.write_tensors("a", {}),
            lambda place=place: place.remove("a"),
            lambda place=place: place.remove_if_empty(),
            lambda of=checkpoints: of.write({"epoch": 1, "batch": 1}),
            lambda place=place: pictures.write_figure(place, "a.png", Figure((1, 1))),
        ):
            with pytest.raises(S11Error, match="gone"):
                change()
    with pytest.raises(S11Error, match="gone"):
        Checkpoints(folder.sub("sub")).remove()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_in_a_folder_whose_name_is_not_unicode_goes_on_and_opens(undisturbed, tmp_path):
    whole, learn, argv = undisturbed
    out = tmp_path / "r\udce9sultats"
    stopped(argv, out, 8)
    run.main([*argv, "--out", str(out), "--resume"])
    assert compare(whole, out) == []
    opened = load_run(out, device="cpu")
    for ours, theirs in zip(opened.model.parameters(), learn.model.parameters(), strict=True):
        assert ours.equal(theirs)
