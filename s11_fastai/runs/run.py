"""The run folder: what is written where, and when."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from s11_fastai.callbacks.checkpoint import State, below, check_network
from s11_fastai.errors import S11Error
from s11_fastai.lr_bounds import LRBounds
from s11_fastai.runs.checkpoints import CheckpointFolder
from s11_fastai.runs.lock import check_free, holds_run, lock_of
from s11_fastai.runs.records import EpochRow, StepRow, best_of, read_bounds, readable, to_csv
from s11_fastai.runs.settings import differences, read_config
from s11_fastai.storage import write_atomically, write_sealed


class Saved(NamedTuple):
    """Where a run goes on: the Learner's state, and what was recorded of the epoch so far."""

    learner: State
    so_far: dict


class RunFolder:
    """The files of one run. Every file is written whole or not at all.

    `config` is the run's settings, `env` what it runs on; `saved` is set where it goes on. It is
    made while the folder is `locked`.
    """

    def __init__(self, path: Path, config: Mapping, env: Mapping) -> None:
        self.path, self.config, self.env = path, dict(config), dict(env)
        self.bounds: LRBounds | None = None
        self.history: list[EpochRow] = []
        self.steps: list[StepRow] = []
        self.best_weights: dict[str, torch.Tensor] = {}
        self.checkpoints = CheckpointFolder(path / "checkpoint")
        self.saved: Saved | None = None
        self._lock = lock_of(path)

    def write_config(self) -> None:
        """Write what the run is, and on what it runs."""
        write_atomically(self.path / "config.json", _json(self.config))
        self.write_json("env.json", self.env)

    @contextmanager
    def taken_back_on_error(self) -> Iterator[None]:
        """Take back what `write_config` wrote where an S11Error shows that there can be no run."""
        try:
            yield
        except S11Error:
            for name in ("env.json", "config.json"):
                (self.path / name).unlink(missing_ok=True)
            raise

    @property
    def steps_done(self) -> int:
        """The training steps behind the run where it goes on."""
        return self.saved.learner.values["at"]["train_iter"] if self.saved else 0

    @property
    def best(self) -> EpochRow | None:
        return best_of(self.history)

    def write_json(self, name: str, value: Mapping) -> None:
        self._write(name, _json(value))

    def write_bounds(self, bounds: LRBounds) -> None:
        self.bounds = bounds
        self.write_json("lr_bounds.json", asdict(bounds))

    def write_weights(self, name: str, weights: Mapping[str, torch.Tensor]) -> None:
        """A state dict as safetensors: nothing but names, shapes and numbers."""
        self.check_there()
        write_sealed(self.path / name, weights)

    def add_epoch(self, row: EpochRow, steps: Sequence[StepRow], model: torch.nn.Module) -> None:
        """Take in a finished epoch, and its weights where it is the best so far."""
        self.history.append(row)
        self.steps += steps
        if self.best is row:
            self.best_weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
            self.write_weights("best.safetensors", self.best_weights)
        self._write_rows()

    def write_checkpoint(self, learner: State, so_far: Mapping) -> None:
        """Keep all that the run needs to go on from here, its records included."""
        self.check_there()
        tensors = {f"learner.{name}": value for name, value in learner.tensors.items()}
        tensors |= {f"best.{name}": value for name, value in self.best_weights.items()}
        tensors["steps"] = torch.tensor(self.steps, dtype=torch.float64)
        values = {
            "config": self.config,
            "env": self.env,
            "bounds": asdict(self.bounds),
            "history": self.history,
            "learner": learner.values,
            "so_far": so_far,
        }
        self.checkpoints.write(*learner.values["at"]["position"], tensors, values)

    def take_up(self, tensors: dict[str, torch.Tensor], values: Mapping) -> None:
        """Be where the checkpoint is, the records on disk included."""
        self.saved = Saved(State(below("learner", tensors), values["learner"]), values["so_far"])
        self.history = [EpochRow(*row) for row in values["history"]]
        self.steps = [StepRow(int(step), *row) for step, *row in tensors["steps"].tolist()]
        self.best_weights = below("best", tensors)
        bounds = values["bounds"]
        self.write_bounds(
            LRBounds(**bounds | {name: tuple(bounds[name]) for name in ("lrs", "losses")})
        )
        if self.history:
            self.write_weights("best.safetensors", self.best_weights)
            self._write_rows()

    def results(self, n_parameters: int, evaluated_on: str) -> dict:
        """What came out, for `results.json`; accuracies are fractions."""
        return {
            "params": n_parameters,
            "epochs": len(self.history),
            "final_accuracy": self.history[-1].valid_accuracy,
            "best_accuracy": self.best.valid_accuracy,
            "best_epoch": self.best.epoch,
            "lr_min": self.bounds.lr_min,
            "lr_max": self.bounds.lr_max,
            "seed": self.config["seed"],
            "data": self.env["data"],
            "evaluated_on": evaluated_on,
        }

    def finish(self, results: Mapping) -> None:
        """Write `results.json`, the last file of all: a run that has it is finished."""
        self.write_json("results.json", results)

    def _write_rows(self) -> None:
        self._write("history.csv", to_csv(EpochRow, self.history))
        self._write("steps.csv", to_csv(StepRow, self.steps))

    def _write(self, name: str, data: bytes | str) -> None:
        self.check_there()
        write_atomically(self.path / name, data)

    def check_there(self) -> None:
        """Raise S11Error where the folder is gone, or is another run's by now."""
        # Writing would make the folder anew, or into another run's.
        if not (self.path / "config.json").exists() or lock_of(self.path) != self._lock:
            raise S11Error(f"{self.path} was moved or removed while the run went on: begin again")


def _json(value: Mapping) -> str:
    return json.dumps(value, indent=2) + "\n"


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
