"""README stays true: its Python runs, its figures are those of committed results."""

import json
import re
from pathlib import Path

import bench
import compare
import interpret
import matplotlib

from s11_fastai.cli import run_flags

matplotlib.use("Agg")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_first_block_is_the_set_up_that_ci_runs_as_it_stands():
    demo, tests = (line.split("#")[0].strip() for line in blocks("sh")[0].splitlines())
    assert demo == 'pip install -e ".[test]" && python experiments/run.py --demo'
    assert tests == 'pip install -e ".[test]" && pytest'
    assert README.index("```sh") < README.index("## ")


def test_every_experiment_command_parses():
    commands = re.findall(
        r"(?:python|torchrun|launch)[^`\n]* experiments/run\.py ?([^`\n]*)", README
    )
    assert len(commands) >= 8
    for command in commands:
        run_flags(re.split(r"\s+#|;", command)[0].replace("$seed", "0").split())


def test_the_python_example_runs(monkeypatch, tmp_path):
    """As it stands, but for fewer epochs."""
    code, _ = blocks("python")
    monkeypatch.chdir(tmp_path)
    assert "fit_one_cycle(24," in code
    names: dict = {}
    exec(code.replace("fit_one_cycle(24,", "fit_one_cycle(1,"), names)
    assert names["learn"].recorder.hps["lr"][0] == names["bounds"].lr_min


def test_the_example_that_opens_a_run_works(finished, pets):
    _, code = blocks("python")
    code = code.replace("runs/full", str(finished[0])).replace("(25)", "(9)")  # of 20 images
    code = code.replace("some/picture.jpg", str(pets / "test/cat/0000.png"))
    names: dict = {}
    exec(code, names)
    assert names["found"].confusion_matrix().sum() == 20
    matplotlib.pyplot.close("all")


def test_the_commands_that_show_runs_parse():
    for name, module in (("interpret", interpret), ("compare", compare)):
        commands = re.findall(rf"python experiments/{name}\.py ([^#\n]*)", README)
        assert commands
        assert all(module.parse(command.split()) for command in commands)


def test_the_bench_parses_and_its_figures_are_those_of_its_page():
    (command,) = re.findall(r"python experiments/bench\.py ([^#\n`]*)", README)
    assert bench.parse(command.split()).out
    page = (ROOT / "results/bench.md").read_text()
    said = README.split("## Speed")[1].split("\n## ")[0]
    rows = re.findall(r"^\|.*\|$", said, re.MULTILINE)
    assert len(rows) > 10
    assert all(row in page for row in rows)
    figures = re.findall(r"\S+ MiB|[\d.]+(?= times)", said)
    assert len(figures) == 4
    assert all(f"| {figure} |" in page for figure in figures)


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
