import shutil
from contextlib import suppress

import evaluate
import pytest
import run
import torch
from helpers import BOUNDS, SMALL, help_without_heavy_imports
from PIL import Image

from s11_fastai.model import S11ResNet
from s11_fastai.runs.weights import Classifier, write_weights


@pytest.fixture
def said(capsys):
    """Call the script; what it printed, line by line, or its one line of an error."""

    def call(*argv) -> list[str]:
        capsys.readouterr()
        with suppress(SystemExit):
            evaluate.main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return (out + err).splitlines()

    return call


@pytest.fixture(scope="module")
def held_out(pets, tmp_path_factory, fewer_pictures):
    """A run that was evaluated on held-out images, and its images."""
    out = tmp_path_factory.mktemp("runs") / "held-out"
    run.main(["--data", str(pets), "--out", str(out), "--holdout", "10", *SMALL, *BOUNDS])
    return out, pets


def test_a_run_that_chose_on_held_out_images_is_evaluated_on_the_test_images(held_out, said):
    before, images, result = said(held_out[0])
    assert before.startswith("the run's own figure, of 10 held-out images: accuracy ")
    assert "50 training and 20 test images" in images
    (held_out[1] / "train/cat/notes.txt").write_text("mine")
    try:
        *_, note, _ = said(held_out[0])
    finally:
        (held_out[1] / "train/cat/notes.txt").unlink()
    assert note.startswith("left out, as no image of a class: 1 of ")
    assert result.startswith("accuracy ")
    assert "% of the test images, loss " in result
    assert result.endswith(" nats (without label smoothing)")


def test_a_finished_run_has_the_accuracy_that_it_says(undisturbed, said):
    *_, result = said(undisturbed[0])
    final = undisturbed[1].recorder.values[-1][2]
    assert result.startswith(f"accuracy {final:.2%} of the test images, loss ")


def test_what_cannot_be_evaluated_is_one_line(undisturbed, tmp_path, said):
    weights = undisturbed[0] / "model.safetensors"
    assert said() == ["evaluate.py: give the folder of a run, or --weights and a file"]
    assert said("--weights", weights, undisturbed[0]) == said()
    (other_classes,) = said("--weights", weights, "--data", "digits")
    assert other_classes == (
        "evaluate.py: digits has 0, 1, 2, 3, 4 and 5 more, which the weights do not know: give "
        "--data, images of cat, dog"
    )
    (no_run,) = said(tmp_path)
    assert "holds no run" in no_run


def test_a_run_on_images_without_a_test_part_is_one_line_that_says_what_helps(
    held_out, undisturbed, tmp_path, said
):
    shutil.copytree(held_out[1] / "train", tmp_path / "pets" / "train")
    out, weights = tmp_path / "r", tmp_path / "r/model.safetensors"
    argv = ["--data", str(tmp_path / "pets"), "--holdout", "10", *SMALL, *BOUNDS]
    run.main([*argv, "--out", str(out)])
    assert said(out)[-1] == (
        f"evaluate.py: pets has no test images: run evaluate.py with --weights {weights} and "
        "--data, other images of the same classes"
    )
    *_, result = said("--weights", weights, "--data", held_out[1])  # as it says
    assert result.startswith("accuracy ")
    (other,) = said(undisturbed[0], "--data", tmp_path / "pets")
    assert "differs from the run's" in other
    assert "--holdout" not in other


def test_photos_of_some_of_the_classes_are_all_evaluated(tmp_path, said):
    model = S11ResNet(3, 1).eval()
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.copy_(torch.tensor([0, 0, 1]))  # all that it ever sees is a cat
    classifier = Classifier(model, ("ant", "bee", "cat"), 32, (0.5,) * 3, (0.5,) * 3)
    write_weights(tmp_path / "w", classifier, {})
    for name in ("bee/1.png", "cat/1.png", "cat/2.png", "cat/3.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "photos" / name)
    _, read, note, result = said("--weights", tmp_path / "w", "--data", tmp_path / "photos")
    assert read == "read as: 2 folders, each a class, no test part"
    assert note == "all images are evaluated, as if the network had seen none of them"
    assert result.startswith("accuracy 75.00% of the test images, loss ")


def test_help_needs_nothing_heavy():
    assert "--weights" in help_without_heavy_imports("evaluate")
