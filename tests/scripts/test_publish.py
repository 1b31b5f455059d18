import io
import json
import shutil

import evaluate
import numpy as np
import publish
import pytest
from helpers import help_without_heavy_imports
from PIL import Image

from s11_fastai.errors import S11Error
from s11_fastai.runs.records import read_records
from s11_fastai.storage import read_tensors


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory):
    """What is published of a finished run: the run, the folder and the file of weights."""
    run, to = finished[0], tmp_path_factory.mktemp("published")
    publish.main([str(run), str(to / "seed-0"), "--weights", str(to / "model.safetensors")])
    return run, to / "seed-0", to / "model.safetensors"


def test_published_records_are_those_of_the_run_but_for_where_its_images_lay(published):
    run, folder, _ = published
    ours, theirs = read_records(folder), read_records(run)
    assert (ours.history, ours.steps, ours.results) == (
        theirs.history,
        theirs.steps,
        theirs.results,
    )
    assert (ours.bounds, ours.env) == (theirs.bounds, theirs.env)
    data = theirs.config["data"]
    assert ours.config == theirs.config | {"data": data.rsplit("/", 1)[-1]}
    assert str(run.parent) not in (folder / "config.json").read_text()


def test_published_pictures_are_those_of_the_run_without_the_training_images(published):
    run, folder, _ = published
    drawn = {path.stem for path in (run / "figures").glob("*.png")}
    pictures = [path for path in folder.iterdir() if path.suffix in (".png", ".webp")]
    assert {path.stem for path in pictures} == drawn - {"samples", "augmented"}
    for path in pictures:
        assert path.stat().st_size <= publish.MOST_BYTES
        original = run / "figures" / f"{path.stem}.png"
        kept = original.stat().st_size <= publish.MOST_BYTES
        assert (path.read_bytes() == original.read_bytes()) is kept
        assert (path.suffix == ".png") is kept


def test_a_large_picture_becomes_a_small_one_of_the_same_shape(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 2400, 3), np.uint8)
    path = tmp_path / "large.png"
    Image.fromarray(pixels).save(path)
    small = Image.open(io.BytesIO(publish.small_webp(path)))
    assert (small.format, small.size) == ("WEBP", (1200, 600))
    before, _, after = path.read_bytes().rpartition(b"IDAT")
    path.write_bytes(before + b"\xffDAT" + after)
    with pytest.raises(S11Error, match=r"large\.png cannot be read: run interpret.py"):
        publish.small_webp(path)


def test_published_weights_claim_what_they_evaluate_to(published, tmp_path, capsys):
    run, _, weights = published
    claim = read_tensors(weights)[1]["claim"]
    capsys.readouterr()
    data = json.loads((run / "config.json").read_text())["data"]
    evaluate.main(["--weights", str(weights), "--data", data])
    *_, result, claimed = capsys.readouterr().out.splitlines()
    assert result.startswith(f"accuracy {claim['accuracy']:.2%} of the test images")
    assert claimed == f"its file claims {claim['accuracy']:.2%}: the same"
    others = shutil.copytree(data, tmp_path / "others")
    shutil.copy(others / "test/cat/0000.png", others / "test/cat/0001.png")
    evaluate.main(["--weights", str(weights), "--data", str(others)])
    *_, claimed = capsys.readouterr().out.splitlines()
    assert claimed == f"its file claims {claim['accuracy']:.2%}: of other images"


def test_nothing_is_overwritten_and_half_a_run_is_not_published(published, tmp_path, capsys):
    run, folder, weights = published
    interrupted = shutil.copytree(run, tmp_path / "interrupted")
    (interrupted / "results.json").unlink()
    before = weights.read_bytes()
    for argv in (
        [run, folder],
        [run, folder.parent / "new", "--weights", weights],
        [interrupted, folder.parent / "new"],
    ):
        with pytest.raises(SystemExit):
            publish.main([str(word) for word in argv])
    exists, kept, unfinished = capsys.readouterr().err.splitlines()
    assert exists == f"publish.py: {folder} exists and is kept: give another name"
    assert kept == f"publish.py: {weights} exists and is kept: give another name"
    assert unfinished == f"publish.py: {interrupted} is not finished: finish the run first"
    assert not (folder.parent / "new").exists()
    assert weights.read_bytes() == before


def test_the_records_alone_are_published_without_a_picture(published, tmp_path):
    run, folder, _ = published
    publish.main([str(run), str(tmp_path / "out"), "--records-only"])
    records = {path.name for path in folder.iterdir() if path.suffix in (".json", ".csv")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == records


def test_a_record_that_a_run_lacks_is_left_out(published, tmp_path):
    older = shutil.copytree(published[0], tmp_path / "older")
    (older / "classes.json").unlink()
    publish.main([str(older), str(tmp_path / "out")])
    assert not (tmp_path / "out/classes.json").exists()
    assert (tmp_path / "out/history.csv").exists()


def test_pictures_that_cannot_be_read_or_are_of_other_weights_leave_nothing(
    published, tmp_path, capsys
):
    run = shutil.copytree(published[0], tmp_path / "run")
    argv = [run, tmp_path / "out", "--weights", tmp_path / "weights.safetensors"]
    record = json.loads((run / "classes.json").read_text())
    (run / "classes.json").write_text(json.dumps(record | {"weights": "best"}))
    with pytest.raises(SystemExit):
        publish.main([str(word) for word in argv])
    assert "shows other weights than those after its last epoch" in capsys.readouterr().err
    (run / "classes.json").write_text(json.dumps(record))
    (run / "figures/loss.png").write_bytes(bytes(publish.MOST_BYTES + 1))
    with pytest.raises(SystemExit):
        publish.main([str(word) for word in argv])
    said = capsys.readouterr().err
    assert "loss.png cannot be read: run interpret.py" in said
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_run_whose_pictures_are_gone_says_that_none_was_published(published, tmp_path, capsys):
    run = shutil.copytree(published[0], tmp_path / "run")
    shutil.rmtree(run / "figures")
    publish.main([str(run), str(tmp_path / "out")])
    assert capsys.readouterr().out == f"7 records and 0 pictures are in {tmp_path / 'out'}\n"


def test_help_needs_nothing_heavy():
    assert "--weights" in help_without_heavy_imports("publish")
