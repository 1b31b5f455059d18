import numpy as np
import predict
import pytest
from helpers import help_without_heavy_imports
from PIL import Image

from s11_fastai import load_run


def test_each_picture_gets_its_most_probable_classes(undisturbed, tmp_path, capsys):
    weights = undisturbed[0] / "model.safetensors"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    paths = [tmp_path / name for name in ("a.png", "b\n.bmp")]
    for path in paths:
        Image.fromarray(pixels).save(path)
    predict.main(["--weights", str(weights), *map(str, paths)])
    first, second = capsys.readouterr().out.splitlines()
    name, _, probabilities = load_run(undisturbed[0], device="cpu").predict(paths[0])
    assert first.startswith(f"{paths[0]}: {name} {probabilities.max():.1%}, ")
    assert second.startswith(f"{tmp_path}/b\\n.bmp: {name} ")


def test_a_picture_that_cannot_be_read_is_told_before_any_other(undisturbed, tmp_path, capsys):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    weights = undisturbed[0] / "model.safetensors"
    with pytest.raises(SystemExit) as stop:
        predict.main(["--weights", str(weights), str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (2, "")
    assert "b.png is no picture that can be read" in said.err


def test_help_needs_nothing_heavy():
    assert "--weights" in help_without_heavy_imports("predict")
