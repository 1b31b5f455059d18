"""A run: training with its records, checkpoints and weights in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.torch_core import get_model

from s11_fastai.callbacks.checkpoint import Resume, SaveCheckpoints
from s11_fastai.callbacks.distributed import Processes, ShardBatches, check_shards
from s11_fastai.callbacks.fit_state import check_network
from s11_fastai.callbacks.progress import EpochTable, StepBar, TimeEstimate, summary
from s11_fastai.callbacks.recording import EpochRow, RecordEpochs, StepRow, best_of
from s11_fastai.callbacks.stopping import StopOnDivergence, StopOnSignal
from s11_fastai.environment import environment
from s11_fastai.errors import S11Error
from s11_fastai.learner import S11Learner, n_parameters
from s11_fastai.lr_bounds import RANGE_TEST_STEPS, LRBounds
from s11_fastai.runs.checkpoints import Checkpoints
from s11_fastai.runs.lock import RunFolder
from s11_fastai.runs.records import (
    Records,
    bounds_or_none,
    check_state,
    env_or_empty,
    parse_bounds,
    to_csv,
)
from s11_fastai.runs.schema import MAX_STEPS
from s11_fastai.runs.settings import Settings, read_config
from s11_fastai.runs.weights import Classifier
from s11_fastai.runs.whole import WEIGHTS, read_all
from s11_fastai.signals import StopSignals
from s11_fastai.sources import ImageSet
from s11_fastai.streams import say


def start_run(
    folder: RunFolder,
    settings: Settings,
    learn: S11Learner,
    images: ImageSet,
    processes: Processes,
    signals: StopSignals,
    checkpoint_minutes: float,
) -> Run:
    """Begin the run in its folder, or go on from its newest checkpoint, and say so.

    `learn` is the Learner that the settings describe, with fresh weights. Processes other than
    the main one follow it. Raises S11Error where the folder holds a run of other settings, images
    or network, where a process differs from the main one in them, or where a batch has fewer images
    than there are processes.
    """
    mark = images.fingerprint
    if not processes.is_main:
        theirs: Any = processes.from_main(lambda: None)
        check_same(theirs, (settings, mark, learn.precision))
        return Run(settings, learn, processes, signals)
    check_shards(len(images.train.labels), settings.bs, processes.world_size)
    env = environment(processes.device, learn.precision, processes.world_size) | images.facts()
    steps = settings.epochs * len(learn.dls.train)
    if steps > MAX_STEPS:
        raise S11Error(
            f"`epochs` and `bs` make {steps:,} steps, and records hold {MAX_STEPS:,}: give fewer "
            "epochs or a larger batch"
        )
    say(
        f"{learn.describe()}, {steps:,} steps of {settings.bs} images in {learn.precision} on "
        f"{env['device_name']}"
    )
    run = MainRun(folder, settings, learn, images, env, processes, signals, checkpoint_minutes)
    for line in run.begin_or_resume():
        say(line)
    processes.from_main(lambda: (settings, mark, learn.precision))
    return run


def check_same(run: tuple[Settings, str, str], own: tuple[Settings, str, str]) -> None:
    """Raise S11Error where a process has another setting, other images or another precision than
    the main one: its shards would be those of another run."""
    settings, *facts = run
    wrong = settings.differences(own[0].as_dict())
    for what, theirs, ours in zip(("images", "precision"), facts, own[1:], strict=True):
        if theirs != ours:
            wrong.append(f"{what} {ours:.12} differs from the run's {theirs:.12}")
    if wrong:
        raise S11Error(
            f"a process other than the first: {'; '.join(wrong)}: give all of them the same "
            "settings, images and `precision`"
        )


class Run:
    """A run as every process sees it: training, and nothing else."""

    def __init__(
        self, settings: Settings, learn: S11Learner, processes: Processes, signals: StopSignals
    ) -> None:
        self.settings, self.learn = settings, learn
        self.processes, self.signals = processes, signals
        self.state: dict[str, Any] | None = None

    def find_bounds(self, find: Callable[[], LRBounds]) -> LRBounds:
        """The bounds of the run: those that it has, or what `find` gives in the main process.

        From then on a signal stops all processes at the same batch.
        """
        told: Any = self.processes.from_main(lambda: None)
        bounds, self.state = told
        return bounds

    def callbacks(self) -> list[Callback]:
        """What the fit of the run needs, in every process."""
        together = [ShardBatches(self.processes)] if self.processes.world_size > 1 else []
        stop = StopOnSignal(self.signals, self.processes)
        return [*together, Resume(self.state), StopOnDivergence(), stop]

    def finish(self, draw: Callable[[Records], Path | None] = lambda _: None) -> None:
        """End training; where a signal ended it before its end, raise Stopped."""
        self.processes.close()
        self.signals.raise_if_asked()


class MainRun(Run):
    """A run in the main process, which has its folder."""

    def __init__(
        self,
        folder: RunFolder,
        settings: Settings,
        learn: S11Learner,
        images: ImageSet,
        env: Mapping[str, Any],
        processes: Processes,
        signals: StopSignals,
        checkpoint_minutes: float,
    ) -> None:
        super().__init__(settings, learn, processes, signals)
        self.folder, self.images, self.env = folder, images, dict(env)
        self.bounds: LRBounds | None = None
        self.about = Classifier.of(learn).about()
        self.best_weights: dict[str, torch.Tensor] = {}
        self.record = RecordEpochs(self._write_epoch)
        self.saver = SaveCheckpoints(self._write_checkpoint, checkpoint_minutes)
        self.checkpoints = Checkpoints(folder.sub("checkpoint"))

    # Beginning, or going on.

    def begin_or_resume(self) -> list[str]:
        """Start the run, or load its newest checkpoint; returns lines to print."""
        if not self.folder.begun:
            self._write_config()
            return []
        path = self.folder.path
        wrong = read_config(path).differences(self.settings.as_dict())
        state = self.checkpoints.newest()
        if state is None:
            self._refuse(wrong + self._other_images(env_or_empty(path)))
            if (path / "history.csv").exists():
                raise S11Error(
                    f"{path} has lost its checkpoints, and results.json, which ends a run: bring "
                    "one back from a copy, or choose another folder"
                )
            self._write_config()
            self.bounds = bounds_or_none(path)
            return []
        try:
            before = self._go_on(state, wrong)
        # A stranger's can fail in nearly any way.
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise S11Error(
                f"{path} has a checkpoint that is not one of a run ({type(error).__name__}: "
                f"{error}): choose another folder"
            ) from error
        changed = self._note_changes(before)
        self._write_config()
        skipped = [
            f"{word}; going on from the checkpoint before it" for word in self.checkpoints.damaged
        ]
        flaw = [self.folder.flaw] if self.folder.flaw else []
        return [*flaw, *skipped, *changed, f"going on after {self.steps_done:,} steps"]

    def _go_on(self, state: Mapping[str, Any], wrong: list[str]) -> dict[str, Any]:
        """Load a checkpoint; the environment it was made in. `wrong` is what differs already."""
        check_state(state)
        before, own = state["env"], Settings.from_dict(state["settings"])
        wrong = wrong + [w for w in own.differences(self.settings.as_dict()) if w not in wrong]
        self._refuse(wrong + self._other_images(before))
        check_network(self.learn.model, state["learner"])
        self._load_state_dict(state)
        return before

    @property
    def steps_done(self) -> int:
        """The training steps behind the run where it goes on."""
        return self.state["train_iter"] if self.state else 0

    def find_bounds(self, find: Callable[[], LRBounds]) -> LRBounds:
        """The same, told to all processes with the state that the fit goes on from."""
        bounds, _ = self.processes.from_main(lambda: (self._bounds(find), self.state))
        return bounds

    def _bounds(self, find: Callable[[], LRBounds]) -> LRBounds:
        steps, evaluations = (self.settings.epochs * len(dl) for dl in self.learn.dls.loaders)
        left = 1 - self.steps_done / steps
        to_find = 0 if self.bounds or self.settings.lr_max else RANGE_TEST_STEPS
        device = self.learn.dls.device
        self.estimate = TimeEstimate(to_find + left * steps, left * evaluations, device)
        if self.bounds is None:
            bar = StepBar("range test", RANGE_TEST_STEPS)
            try:
                with self.learn.added_cbs([bar, self.estimate]):
                    self.bounds = find()
            except S11Error:  # there can be no run: take back what begins one
                self.folder.take_back()
                raise
            self.folder.write_json("lr_bounds.json", asdict(self.bounds))
        say(f"lr from {self.bounds.lr_min:.3g} up to {self.bounds.lr_max:.3g} and back")
        self.signals.be_patient()
        return self.bounds

    def callbacks(self) -> list[Callback]:
        """What the fit of the run needs: it records, saves, shows, guards and stops it."""
        steps = self.settings.epochs * len(self.learn.dls.train)
        table, bar = EpochTable(self.images.evaluated_on), StepBar("training", steps)
        return [*super().callbacks(), self.record, table, self.saver, bar, self.estimate]

    # The end.

    def finish(self, draw: Callable[[Records], Path | None] = lambda _: None) -> None:
        """Write the final weights, let `draw` make the pictures, and `results.json` last of all.

        `draw` gives the page to look at, where there is one. The checkpoints go once all else has
        been read back. Where a signal ended training before its end, raise Stopped.
        """
        super().finish()
        weights = self.learn.model.state_dict()
        self.folder.write_tensors(WEIGHTS["final"], weights, self.about)
        results = self._results(self.record.history)
        page = draw(replace(self.records(), results=results))
        self._read_back()
        self.folder.write_json("results.json", results)
        with suppress(OSError):  # a finished run that is looked at again lets them go
            self.checkpoints.remove()
        look = f"; the page is {page}" if page else ""
        say(f"{summary(results)}\neverything is in {self.folder.path}{look}")

    def _read_back(self) -> None:
        """Raise S11Error where the folder does not hold what was written there."""
        path = self.folder.path
        records, *weights = read_all(path)
        own = self.learn.model.state_dict(), self.best_weights
        same = all(
            theirs.keys() == ours.keys() and all(t.equal(ours[k].cpu()) for k, t in theirs.items())
            for theirs, ours in zip(weights, own, strict=True)
        )
        if not same or records != self.records():
            raise S11Error(
                f"{path} does not hold what was written there: look at the disk, and whether "
                "somebody changes files there, then give `resume`"
            )

    def records(self) -> Records:
        """What the run has recorded so far; it has no results yet."""
        return Records(
            path=self.folder.path,
            settings=self.settings,
            env=self.env,
            bounds=self.bounds,
            history=list(self.record.history),
            steps=list(self.record.steps),
            results=None,
        )

    def _results(self, history: list[EpochRow]) -> dict[str, Any]:
        best, bounds = best_of(history), self.bounds
        assert best is not None
        assert bounds is not None
        return {
            "params": n_parameters(self.learn.model),
            "epochs": len(history),
            "final_accuracy": history[-1].valid_accuracy,
            "best_accuracy": best.valid_accuracy,
            "best_epoch": best.epoch,
            "lr_min": bounds.lr_min,
            "lr_max": bounds.lr_max,
            "seed": self.settings.seed,
            "data": self.env["data"],
            "evaluated_on": self.images.evaluated_on,
        }

    # What is written while it goes on.

    def _write_config(self) -> None:
        self.folder.write_json("config.json", self.settings.as_dict())
        self.folder.begun = True
        self.folder.write_json("env.json", self.env)

    def _write_epoch(self) -> None:
        """Write the tables, and the weights where the epoch that is over is the best so far."""
        if best_of(self.record.history) is self.record.history[-1]:
            weights = get_model(self.learn.model).state_dict()
            self.best_weights = {k: v.detach().clone() for k, v in weights.items()}
            self.folder.write_tensors(WEIGHTS["best"], self.best_weights, self.about)
        self._write_tables()

    def _write_tables(self) -> None:
        self.folder.write("history.csv", to_csv(EpochRow, self.record.history))
        self.folder.write("steps.csv", to_csv(StepRow, self.record.steps))

    def _write_checkpoint(self, learner: dict[str, Any]) -> None:
        self.checkpoints.write(self._state_dict(learner))

    def _state_dict(self, learner: dict[str, Any]) -> dict[str, Any]:
        """All that the run needs to go on from here, its records included."""
        return {
            "epoch": learner["epoch"],
            "batch": learner["batch"],
            "settings": self.settings.as_dict(),
            "env": self.env,
            "bounds": asdict(self.bounds) if self.bounds else None,
            "best": self.best_weights,
            "learner": learner,
        }

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be where the checkpoint is, the records on disk included."""
        self.state, self.best_weights = state["learner"], state["best"]
        rows = state["learner"]["callbacks"][self.record.name]
        self.record.load_state_dict(rows)
        place = state["learner"]["epoch"], state["learner"]["batch"]
        if place != (len(rows["history"]), len(rows["epoch"]["batches"])):
            raise ValueError("its rows are not those of its place")
        self.bounds = parse_bounds(state["bounds"])
        if self.record.history:
            check_network(self.learn.model, {"model": self.best_weights})
        self.folder.remove("results.json")  # which says that all else is there
        self.folder.write_json("lr_bounds.json", asdict(self.bounds))
        if self.record.history:
            self.folder.write_tensors(WEIGHTS["best"], self.best_weights, self.about)
            self._write_tables()
        else:  # a stop may have come between the first epoch's records and its checkpoint
            self.folder.remove("history.csv", "steps.csv", WEIGHTS["best"])

    # Whether it is the same run.

    def _other_images(self, before: Mapping[str, Any]) -> list[str]:
        theirs, ours = before.get("data_fingerprint"), self.env["data_fingerprint"]
        if theirs in (None, ours):
            return []
        return [f"the images' fingerprint {ours[:12]} differs from the run's {str(theirs)[:12]}"]

    def _refuse(self, wrong: list[str]) -> None:
        if wrong:
            path = self.folder.path
            raise S11Error(f"{path}: {'; '.join(wrong)}; mend that, or choose another folder")

    def _note_changes(self, before: Mapping[str, Any]) -> list[str]:
        """Note in the environment what has changed since the checkpoint; a line on it."""
        resumed = before.get("resumed", [])
        self.env["data"] = before.get("data", self.env["data"])  # the same images, renamed
        changed = {
            key: [before.get(key), self.env.get(key)]
            for key in sorted((before.keys() | self.env.keys()) - {"resumed"})
            if before.get(key) != self.env.get(key)
        }
        if changed:
            resumed = [*resumed, {"step": self.steps_done, **changed}]
        if resumed:
            self.env["resumed"] = resumed
        if not changed:
            return []
        what = ", ".join(f"{key} was {old}, is {new}" for key, (old, new) in changed.items())
        same = changed.keys() == {"git_revision"}
        return [f"{what}: the run goes on" + ("" if same else ", but not identical to the bit")]
