"""Going on with a run in its folder, once it is sure that it is the same run."""

from collections.abc import Mapping, Sequence

from torch import nn

from s11_fastai.checkpoint import State, below, check_network
from s11_fastai.errors import S11Error
from s11_fastai.records import read_bounds, readable
from s11_fastai.run_path import check_free, holds_run
from s11_fastai.runs import RunFolder
from s11_fastai.settings import differences, read_config


def begin_or_go_on(run: RunFolder, model: nn.Module, resume: bool) -> list[str]:
    """Begin the run, or take it up from its newest checkpoint where `resume` and it has one.

    Returns a line for each thing that a person should know. Raises S11Error where the folder is
    not free, or holds a run of other settings, data or network.
    """
    if not (resume and holds_run(run.path)):
        check_free(run.path)
        run.write_config()
        return []
    wrong = differences(read_config(run.path), run.config)
    found = run.checkpoints.newest()
    if found is None:
        _refuse(run, wrong + _other_data(run, readable(run.path / "env.json")))
        if (run.path / "history.csv").exists():
            raise S11Error(f"{run.path} has lost its checkpoints: choose another --out")
        run.write_config()
        run.bounds = read_bounds(run.path)
        return []
    tensors, values, damaged = found
    before = values["env"]
    wrong += [word for word in differences(values["config"], run.config) if word not in wrong]
    _refuse(run, wrong + _other_data(run, before))
    check_network(model, State(below("learner", tensors), values["learner"]))
    run.take_up(tensors, values)
    words = [f"{word}; going on from the checkpoint before it" for word in damaged]
    words += _changes(run, before)
    run.write_config()
    return [*words, f"going on after {run.steps_done:,} steps"]


def _other_data(run: RunFolder, before: Mapping) -> list[str]:
    theirs, ours = before.get("data_fingerprint"), run.env["data_fingerprint"]
    if theirs in (None, ours):
        return []
    return [f"the images' fingerprint {ours[:12]} differs from the run's {str(theirs)[:12]}"]


def _refuse(run: RunFolder, wrong: Sequence[str]) -> None:
    if wrong:
        raise S11Error(f"{run.path}: {'; '.join(wrong)}; mend that, or choose another --out")


def _changes(run: RunFolder, before: Mapping) -> list[str]:
    """A line on what is another than where the checkpoint was written; `env.json` will keep it."""
    resumed = before.get("resumed", [])
    run.env["data"] = before.get("data", run.env["data"])  # the same images under another name
    changed = {
        key: [before.get(key), run.env.get(key)]
        for key in sorted((before.keys() | run.env.keys()) - {"resumed"})
        if before.get(key) != run.env.get(key)
    }
    if resumed or changed:
        run.env["resumed"] = resumed
    if not changed:
        return []
    run.env["resumed"] = [*resumed, {"step": run.steps_done, **changed}]
    what = ", ".join(f"{key} was {old}, is {new}" for key, (old, new) in changed.items())
    same = changed.keys() == {"git_revision"}
    return [f"{what}: the run goes on" + ("" if same else ", but not identical to the bit")]
