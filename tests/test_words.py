"""The library speaks Python: a flag's name stands in `cli.py` alone."""

import ast
import io
import re
import tokenize

import pytest
from helpers import ROOT

from s11_fastai.cli import as_flags
from s11_fastai.environment import pick_device, pick_precision
from s11_fastai.errors import S11Error
from s11_fastai.lr_bounds import bounds_of

FILES = sorted((ROOT / "s11_fastai").rglob("*.py"))
# The flags of programs that the library calls.
OTHERS = {"environment.py": {"--error-unmatch", "--always", "--dirty", "--abbrev", "--exclude"}}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_flag_is_named_outside_the_command_line(file):
    if file.name == "cli.py":
        return
    tokens = tokenize.generate_tokens(io.StringIO(file.read_text()).readline)
    words = "\n".join(token.string for token in tokens)
    flags = set(re.findall(r"--[a-z][a-z-]+", words)) - OTHERS.get(file.name, set())
    assert not flags


SCRIPTS = sorted({*(ROOT / "experiments").glob("*.py")} - {ROOT / "experiments/gpu_check.py"})
# Of these, what is said on stderr holds no name of a file, or has been through `one_line`.
PRINT = {"cli.py", "streams.py", "bench.py"}


@pytest.mark.parametrize("file", FILES + SCRIPTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_one_function_prints(file):
    """It escapes what no terminal should be sent."""
    tokens = tokenize.generate_tokens(io.StringIO(file.read_text()).readline)
    prints = [token.line for token in tokens if token.string == "print"]
    assert (all("sys.stderr" in line for line in prints) and file.name in PRINT) or not prints


def test_an_error_names_the_parameter_and_on_the_command_line_its_flag():
    with pytest.raises(S11Error) as error:
        bounds_of([0.1] * 50, [float("nan")] * 50)
    assert "or give `lr_max`" in str(error.value)
    assert "or give --lr-max" in as_flags(str(error.value))
    with pytest.raises(S11Error, match="`device` cuda:9 is not on this computer") as error:
        pick_device("cuda:9")
    assert as_flags(str(error.value)).startswith("--device cuda:9 is not")
    with pytest.raises(S11Error, match="`precision` fp8 is unknown"):
        pick_precision("fp8", pick_device("cpu"))


def test_what_is_no_parameter_stays_as_it_is():
    assert as_flags("a `strange` folder `lr_min`/x") == "a `strange` folder --lr-min/x"
    assert as_flags("give `resume` to go on") == "give --resume to go on"


# What stands in backticks in an error and is no flag: these are given in Python alone.
IN_PYTHON = {"opt_func", "pct_start"}


def test_every_parameter_that_an_error_names_is_a_flag():
    named = {
        name
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Raise)
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
        for name in re.findall(r"`(\w+)`", part.value)
    }
    assert {"lr_max", "out", "resume"} <= named
    assert {name for name in named if as_flags(f"`{name}`") == f"`{name}`"} == IN_PYTHON
