import re

import nbformat
import pytest
from helpers import ROOT
from nbclient import NotebookClient

PATH = ROOT / "experiments/s11.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def test_it_is_committed_with_its_outputs_which_hold_no_path(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    pictures, texts = 0, []
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            data = output.get("data", {"text/plain": output.get("text", "")})
            pictures += "image/png" in data
            texts += [text for kind, text in data.items() if kind != "image/png"]
    assert pictures >= 8
    for text in texts:
        assert not re.search(r"/(home|root|usr|tmp|work|opt)/|[A-Z]:\\", text), text


def test_it_calls_the_package_and_holds_no_logic_of_its_own(notebook):
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert not re.search(r"^\s*(def|class|for|while|if|with)\b", source, re.MULTILINE)


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook):
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
