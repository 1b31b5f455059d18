"""What the parts of gpu_check.sh left, as one JSON file; it needs nothing but torch, if that."""

import csv
import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

# What the package and its tests import; the rest comes with these.
_NEEDED = [
    *("accelerate", "albumentations", "captum", "fastai", "filelock", "hypothesis", "jinja2"),
    *("matplotlib", "pytest", "safetensors", "sklearn", "torch", "torchvision", "tqdm"),
]


def collect(out: Path, seconds: float) -> dict:
    """Everything; None stands for what a part that failed did not leave."""
    lines = [line.split("\t") for line in (out / "parts.tsv").read_text().splitlines()]
    parts = {name: {"exit": int(code), "seconds": int(took)} for name, code, took in lines}
    seeds = [name for name in parts if name.startswith("seed-")]
    return {
        **machine(),
        "total_seconds": seconds,
        "parts": parts,
        "tests": _left(tests, out / "tests.xml"),
        "runs": [_left(run, out / name.replace("seed", "run")) for name in seeds],
        "bench": _left(lambda path: json.loads(path.read_text()), out / "bench.out"),
    }


def machine() -> dict:
    """The card, and what computes on it."""
    try:
        import torch
    except ImportError:
        return {"card": None, "torch": None}
    cuda = torch.cuda.is_available()
    return {
        "card": torch.cuda.get_device_name() if cuda else None,
        "cards": torch.cuda.device_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
    }


def tests(path: Path) -> dict:
    """How many tests there were, those that failed with the first line of why, and their notes."""
    [suite] = ElementTree.parse(path).getroot().iter("testsuite")
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    failed, notes = {}, {}
    for case in suite.iter("testcase"):
        for problem in (*case.iter("failure"), *case.iter("error")):
            failed[case.get("name")] = (problem.get("message") or "").split("\n")[0]
        for note in case.iter("property"):
            notes[f"{case.get('name')} {note.get('name')}"] = note.get("value")
    return {**counts, "failed": failed, "notes": notes}


def run(path: Path) -> dict:
    """What a run says of itself; one that was cut off has no final accuracy."""
    env, config = (json.loads((path / f"{name}.json").read_text()) for name in ("env", "config"))
    results = _left(lambda file: json.loads(file.read_text()), path / "results.json") or {}
    with (path / "history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    return {
        "seed": config["seed"],
        "precision": env["precision"],
        "final_accuracy": results.get("final_accuracy"),
        "epochs": len(history),
        "fit_seconds": round(sum(float(row["seconds"]) for row in history), 2),
        "accuracies": [float(row["valid_accuracy"]) for row in history],
    }


def _left(read: Callable[[Path], dict], path: Path) -> dict | None:
    try:
        return read(path)
    except (OSError, ValueError, KeyError, AttributeError, ElementTree.ParseError):
        return None


if __name__ == "__main__":
    if sys.argv[1:] == ["--has-all"]:
        sys.exit(not all(map(find_spec, _NEEDED)))
    folder = Path(sys.argv[1])
    found = collect(folder, float(sys.argv[2]))
    (folder / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
    wrong = [name for name, part in found["parts"].items() if part["exit"]]
    said = f"without: {', '.join(wrong)}" if wrong else "complete"
    print(f"{folder / 'gpu.json'} after {found['total_seconds']:.0f} s, {said}")
