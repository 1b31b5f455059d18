import pytest
from draw_clr import main
from helpers import half_pictures, size_of_picture

from s11_fastai.plots import plot_clr


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("b.svg", b"<?xml")])
def test_draws_png_and_svg_by_the_names_ending(tmp_path, name, magic):
    main(["--out", str(tmp_path / "deep" / name)])
    assert (tmp_path / "deep" / name).read_bytes().startswith(magic)


@pytest.mark.parametrize("name", ["a.png", "b.svg"])
def test_a_picture_that_fails_half_way_leaves_the_old_one(tmp_path, name, capsys):
    out = tmp_path / name
    main(["--out", str(out)])
    before = out.read_bytes()
    with half_pictures(), pytest.raises(SystemExit):
        main(["--out", str(out), "--cycles", "2"])
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_the_default_is_a_picture_of_fair_size(tmp_path):
    main(["--out", str(tmp_path / "clr.png")])
    assert size_of_picture(tmp_path / "clr.png")[0] >= 1000


def test_the_zigzag_lies_between_two_labelled_lines_without_arrows():
    axes = plot_clr(0.1, 0.5, 10, 3).axes[0]
    wave, *lines = axes.get_lines()
    assert wave.get_ydata().min() == 0.1
    assert wave.get_ydata().max() == 0.5
    assert (wave.get_ydata() == 0.5).sum() == 3
    assert sorted(line.get_ydata()[0] for line in lines) == [0.1, 0.5]
    assert sorted(text.get_text() for text in axes.texts) == ["max lr = 0.5", "min lr = 0.1"]
    assert all(text.arrow_patch is None for text in axes.texts)


@pytest.mark.parametrize(
    "argv",
    [
        ["--lr-min", "1", "--lr-max", "0.5"],
        ["--lr-max", "nan"],
        ["--step-size", "0"],
        ["--cycles", "0"],
        ["--cycles", "30000"],
        ["--step-size", "9" * 30],
        ["--out", "clr.gif"],
        ["--cycles", "many"],
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, argv):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
