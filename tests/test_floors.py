"""A file imports only from floors below its own, as CONTRIBUTING.md lists them."""

import ast
import re
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = "s11_fastai"


def floors() -> dict[str, int]:
    """The height of each room; the highest floor is the first of the list."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split("## The house")[1]
    lines = re.findall(r"^(\d+)\. (.+)$", text, re.MULTILINE)
    return {room: -int(number) for number, rooms in lines for room in rooms.split(", ")}


def room_of(file: Path) -> str:
    top, *rest = file.relative_to(ROOT).with_suffix("").parts
    return rest[0] if top == PACKAGE else top


def rooms_used(source: str) -> set[str]:
    """The rooms of the package that a file's text imports, wherever in it."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import hides its floor"
            modules.append(node.module)
            if node.module == PACKAGE:
                modules += [f"{PACKAGE}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return {m.split(".")[1] for m in modules if m.startswith(f"{PACKAGE}.")}


FILES = sorted([*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_from_floors_below(file):
    heights, own = floors(), room_of(file)
    if own == "__init__":
        return
    upward = {
        room
        for room in rooms_used(file.read_text()) & heights.keys()
        if room != own and heights[room] >= heights[own]
    }
    assert not upward, f"{own} is not above {', '.join(sorted(upward))}"


def test_every_room_stands_on_a_floor():
    assert {room_of(file) for file in FILES} - {"__init__"} == floors().keys()


def test_an_upward_import_is_seen():
    assert rooms_used("def f():\n    from s11_fastai.runs.run import Run") == {"runs"}
    assert rooms_used("from s11_fastai import plots") == {"plots"}
