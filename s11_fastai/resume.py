"""Going on with a run in its folder, once it is sure that it is the same run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from s11_fastai.errors import S11Error
from s11_fastai.run_path import check_free, holds_run
from s11_fastai.runs import RunFolder
from s11_fastai.settings import differences, read_config

_RESULTS = {"evaluated_on": str, "final_accuracy": float, "best_accuracy": float, "best_epoch": int}


def finished(path: Path) -> dict | None:
    """The results of the run in a folder, or None where it has not come to its end."""
    results = _readable(path / "results.json")
    sound = all(type(results.get(name)) is kind for name, kind in _RESULTS.items())
    return results if sound else None


def begin_or_go_on(run: RunFolder, resume: bool) -> list[str]:
    """Begin the run, or take it up from its newest checkpoint where `resume` and it has one.

    Returns a line for each thing that a person should know. Raises S11Error where the folder is
    not free, or holds a run with other settings or data.
    """
    if not (resume and holds_run(run.path)):
        check_free(run.path)
        run.begin()
        return []
    wrong = differences(read_config(run.path), run.config)
    found = run.checkpoints.newest()
    if found is None:
        before = _readable(run.path / "env.json").get("data_fingerprint")
        _refuse(run, wrong + _other_data(run, before))
        if (run.path / "history.csv").exists():
            raise S11Error(f"{run.path} has lost its checkpoints: choose another --out")
        run.write_json("env.json", run.env)
        return []
    tensors, values, damaged = found
    wrong += [word for word in differences(values["config"], run.config) if word not in wrong]
    _refuse(run, wrong + _other_data(run, values["env"]["data_fingerprint"]))
    run.take_up(tensors, values)
    words = [f"{word}; going on from the checkpoint before it" for word in damaged]
    words += _changes(run, values["env"])
    return [*words, f"going on after {run.steps_done:,} steps"]


def _other_data(run: RunFolder, fingerprint: str | None) -> list[str]:
    own = run.env["data_fingerprint"]
    if fingerprint in (None, own):
        return []
    return [f"the images' fingerprint {own[:12]} differs from the run's {str(fingerprint)[:12]}"]


def _refuse(run: RunFolder, wrong: Sequence[str]) -> None:
    if wrong:
        raise S11Error(f"{run.path}: {'; '.join(wrong)}; mend that, or choose another --out")


def _changes(run: RunFolder, before: Mapping) -> list[str]:
    """A line on what is another than where the checkpoint was written; `env.json` keeps it."""
    resumed = before.get("resumed", [])
    changed = {
        key: [before.get(key), run.env.get(key)]
        for key in sorted((before.keys() | run.env.keys()) - {"resumed"})
        if before.get(key) != run.env.get(key)
    }
    words = []
    if changed:
        resumed = [*resumed, {"step": run.steps_done, **changed}]
        what = ", ".join(f"{key} was {old}, is {new}" for key, (old, new) in changed.items())
        same = changed.keys() == {"git_revision"}
        words = [f"{what}: the run goes on" + ("" if same else ", but not identical to the bit")]
    if resumed:
        run.env["resumed"] = resumed
    run.write_json("env.json", run.env)
    return words


def _readable(path: Path) -> dict:
    """The values of a JSON file; none where it is missing or damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
