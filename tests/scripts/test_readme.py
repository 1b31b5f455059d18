"""README and docs stay true: their Python runs, their commands parse, their figures have files."""

import io
import json
import re
from pathlib import Path
from statistics import fmean, stdev

import bench
import compare
import evaluate
import interpret
import matplotlib
import predict
import publish
import pytest
import study
import torch
from fits import StopAfter
from helpers import ROOT, read
from PIL import Image
from study_page import Variant, differences, is_settled, read_variants

from s11_fastai import Checkpoints
from s11_fastai.cli import run_flags
from s11_fastai.lr_bounds import bounds_of
from s11_fastai.plots.style import BLUE, GREEN, ORANGE
from s11_fastai.report import reference_log
from s11_fastai.report.groups import mean_and_std
from s11_fastai.runs.records import read_records
from s11_fastai.runs.weights import read_weights

matplotlib.use("Agg")

README = (ROOT / "README.md").read_text()
DOCS = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
BENCH = (ROOT / "results/bench.md").read_text()
EVERYTHING = "\n".join([README, (ROOT / "CONTRIBUTING.md").read_text(), *DOCS.values()])


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_first_block_is_the_set_up_that_ci_runs_as_it_stands():
    demo, tests = (line.split("#")[0].strip() for line in blocks("sh")[0].splitlines())
    assert demo == 'pip install -e ".[test]" && python experiments/run.py --demo'
    assert tests == 'pip install -e ".[test]" && pytest'


def test_it_can_be_read_in_one_go():
    assert len(README.splitlines()) <= 175


def test_every_experiment_command_parses():
    commands = re.findall(
        r"(?:python|torchrun|launch)[^`\n]* experiments/run\.py ?([^`\n]*)", EVERYTHING
    )
    assert len(commands) >= 10
    for command in commands:
        run_flags(re.split(r"\s+#|;", command)[0].replace("$seed", "0").split())


def test_every_other_command_parses(monkeypatch):
    monkeypatch.chdir(ROOT)
    for module in (interpret, compare, study, evaluate, predict, publish):
        name = module.__name__
        commands = re.findall(rf"python experiments/{name}\.py ([^#\n`]*)", EVERYTHING)
        assert commands, name
        assert all(module.parse(command.split()) for command in commands)


def test_every_link_leads_somewhere():
    pages = ["README.md", "CONTRIBUTING.md", "results/study/README.md"]
    for name in [*pages, *(f"docs/{page}.md" for page in DOCS)]:
        here, text = (ROOT / name).parent, (ROOT / name).read_text()
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (here / target).exists(), (name, target)


def test_the_python_example_runs(monkeypatch, tmp_path):
    """As it stands, but for fewer epochs."""
    code = blocks("python")[0]
    monkeypatch.chdir(tmp_path)
    assert "fit_one_cycle(24," in code
    names: dict = {}
    exec(code.replace("fit_one_cycle(24,", "fit_one_cycle(1,"), names)
    assert names["learn"].recorder.hps["lr"][0] == names["bounds"].lr_min
    matplotlib.pyplot.close("all")


def test_the_example_that_opens_a_run_and_exports_it_works(finished, pets, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = blocks("python")[1]
    code = code.replace("runs/full", str(finished[0]))
    names: dict = {}
    exec(code, names)
    given = (pets / "test/cat/0000.png").read_bytes()
    for picture in (given, Image.open(io.BytesIO(given))):
        named = names["classify"](picture)
        assert list(named) == ["cat", "dog"]
        assert sum(named.values()) == pytest.approx(1)
    matplotlib.pyplot.close("all")


def test_the_parts_work_with_anybodys_learner_and_go_on(monkeypatch, tmp_path, capsys):
    """The example as it stands, twice: the second time there is nothing left to train."""
    code = blocks("python")[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 24
    monkeypatch.chdir(tmp_path)
    first: dict = {}
    exec(code, first)
    said, found = (
        re.search(r"# lr_max (\S+);", code),
        re.search(r"lr_max=([^,]+),", capsys.readouterr().out),
    )
    assert float(found[1]) == pytest.approx(float(said[1]), rel=0.05)
    assert len(first["learn"].recorder.values) == 2
    assert next(iter(first["dls"].train))[0].shape == (32, 3, 48, 48)
    again: dict = {}
    exec(code, again)
    assert again["learn"].recorder.values == first["learn"].recorder.values
    for ours, theirs in zip(again["model"].parameters(), first["model"].parameters(), strict=True):
        assert ours.equal(theirs)


def test_the_parts_go_on_where_they_were_interrupted(monkeypatch, tmp_path):
    """The example with a small network, in two processes as it were."""
    large = "torchvision.models.resnet18(num_classes=dls.c)"
    small = "torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48 * 48 * 3, dls.c))"
    assert large in blocks("python")[2]
    code = blocks("python")[2].replace(large, small)
    interrupted = code.replace("cbs=[", "cbs=[stop, ")
    ends = []
    for name in ("whole", "again"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "again":
            with pytest.raises(KeyboardInterrupt):
                exec(interrupted, {"stop": StopAfter(3, KeyboardInterrupt)})
            assert checkpoint_at(tmp_path / name) == (0, 3)
        names: dict = {}
        exec(code, names)
        ends.append([p.tolist() for p in names["model"].parameters()])
    assert ends[0] == ends[1]


def checkpoint_at(folder: Path) -> tuple[int, int]:
    state = Checkpoints(folder / "checkpoints").newest()
    assert state
    return state["epoch"], state["batch"]


def test_every_figure_of_a_result_is_that_of_its_file():
    rows = re.findall(r"\| \[`(results/[^`]+)`\]\S+ \|(.*)\|", README)
    assert rows
    for folder, cells in rows:
        results = json.loads((ROOT / folder / "results.json").read_text())
        data, epochs, seed, params, final = (cell.strip() for cell in cells.split("|"))
        assert data == results["data"]
        assert int(epochs) == results["epochs"]
        assert int(seed) == results["seed"]
        assert int(params.replace(",", "")) == results["params"]
        assert final == f"{results['final_accuracy']:.2%}"


def test_the_mean_is_that_of_all_published_seeds():
    runs = sorted((ROOT / "results/full").glob("seed-*"))
    finals = [100 * read(run / "results.json")["final_accuracy"] for run in runs]
    count = {2: "two", 3: "three"}[len(runs)]
    assert f"` reaches {mean_and_std(finals, '.2f')}% ({count} seeds): " in README
    assert all(f"[`{run.relative_to(ROOT).as_posix()}`]" in README for run in runs)


def test_the_published_weights_claim_what_readme_says():
    """Whoever has the images can check the claim itself."""
    env = read(ROOT / "results/full/seed-0/env.json")
    claim = read_weights(ROOT / "results/full/model.safetensors", torch.device("cpu")).claim
    assert f"--data path/to/cifar10.tgz` gives {claim['accuracy']:.2%}. " in " ".join(
        README.split()
    )
    assert env["data_fingerprint"].startswith(re.search(r"fingerprint (\w{12})", README)[1])
    assert claim["data_fingerprint"] == env["data_fingerprint"]


def test_readmes_figures_of_the_study_stand_there():
    study_page = (ROOT / "results/study/README.md").read_text()
    (figures,) = re.findall(
        r"at width 16, these settings reach (\S*)% and [^%]* (\S*)% \(\[three",
        " ".join(README.split()),
    )
    for name, figure in zip(("default", "reference"), figures, strict=True):
        assert re.search(rf"^\| {name} \|.*\| 3 \| [^|]* \| {figure} ±", study_page, re.MULTILINE)
    (figures,) = re.findall(
        r"reach (\S*)%, and the defaults reach (\S*)% in 12 epochs, half as many \(one seed each\)",
        " ".join(README.split()),
    )
    full = variants_of("final-width-64")
    for name, figure in zip(("reference", "12 epochs"), figures, strict=True):
        assert [f"{accuracy:.2f}" for accuracy in full[name].accuracies.values()] == [figure]


def test_readmes_other_figures_are_those_of_their_files():
    history = read_records(ROOT / "results/full/seed-0").history
    minutes = sum(row.seconds for row in history) / 60
    assert f"): 24 epochs, {minutes:.0f} minutes in" in README
    assert f"reached {reference_log.FINAL_ACCURACY:.2%}, its final epoch" in README


def variants_of(table: str) -> dict[str, Variant]:
    return {v.name: v for v in read_variants(ROOT / f"results/study/{table}.csv")}


@pytest.mark.parametrize(
    ("said", "seeds", "table", "better", "worse"),
    [
        (
            r"times 0.125 \| (\S+) points more at peak 0.4 than times 1 at peak 0.2, "
            r".*, three seeds",
            *(3, "recipe", "candidate", "logit scale 1, peak 0.2"),
        ),
        (
            r"without it: (\S+) points better after 10 epochs at width 16, .* three seeds each",
            *(3, "recipe", "label smoothing 0", "candidate"),
        ),
        (
            r", (\S+) worse after 24 at width 32, three seeds each",
            *(3, "recipe-width-32", "candidate", "label smoothing 0"),
        ),
        (
            r"LRMAX / 10 ends (\S+) points lower, width 16, three seeds",
            *(3, "recipe", "candidate", "ends at peak / 10"),
        ),
        (
            r"runs with it end (\S+) points below peak 0.4, .*, at width 16, .*, three seeds each",
            *(3, "peaks", "peak 0.4", "found"),
        ),
        (
            r"and (\S+) above peak 0.8, .*, at width 32, three seeds each",
            *(3, "peaks-width-32", "found", "peak 0.8"),
        ),
    ],
)
def test_what_a_setting_is_worth_stands_in_the_study(said, seeds, table, better, worse):
    """And is settled or not, as README says of each."""
    ((figure, not_),) = re.findall(f"{said}[^|]*?(not )?settled", README)
    variants = variants_of(table)
    points = differences(variants[better], variants[worse])
    assert len(points) == seeds
    assert f"{fmean(points):.{len(figure.split('.')[1])}f}" == figure
    assert is_settled(points, one_image=0.02) != bool(not_)


def test_the_peaks_beside_which_the_found_one_stands_are_the_best_of_those_given():
    for table, count, width in (("peaks", 7, 16), ("peaks-width-32", 6, 32)):
        given = [each for each in variants_of(table).values() if not each.finds_its_peak]
        assert len(given) == count
        best = max(given, key=lambda variant: fmean(variant.accuracies.values()))
        assert f" {best.name}, the best of those given, at width {width}, " in README


def test_the_spread_of_the_peaks_is_the_studys():
    found = variants_of("bounds") | {"width 8": variants_of("peaks-width-8")["found"]}
    (spreads,) = re.findall(r"its standard deviation over seeds is ([^(]*) \(study", README)
    for spread, name in re.findall(r"(\d+%) at (width \d+)", spreads):
        peaks = list(found.pop(name).peaks.values())
        assert len(peaks) >= 3
        assert f"{stdev(peaks) / fmean(peaks):.0%}" == spread
    assert not found


@pytest.mark.parametrize(
    ("name", "colours"),
    [("accuracy", [BLUE, ORANGE, GREEN]), ("loss", [BLUE, ORANGE]), ("calibration", [ORANGE])],
)
def test_a_published_picture_has_the_colours_that_are_drawn(name, colours):
    picture = Image.open(ROOT / f"results/full/seed-0/{name}.png").convert("RGB")
    pixels = picture.tobytes()
    assert all(bytes.fromhex(colour[1:]) in pixels for colour in colours)


def test_the_published_runs_bounds_are_those_of_the_rule():
    for path in (ROOT / "results/full").glob("seed-*/lr_bounds.json"):
        found = read(path)
        assert bounds_of(found["lrs"], found["losses"]) == (found["lr_min"], found["lr_max"])


def test_the_bench_parses_and_its_figures_are_those_of_its_page():
    (command,) = re.findall(r"python experiments/bench\.py ([^#\n`]*)", DOCS["speed"])
    assert bench.parse(command.split()).out
    rows = re.findall(r"^\|.*\|$", DOCS["speed"], re.MULTILINE)
    assert len(rows) > 10
    assert all(row in BENCH for row in rows)
