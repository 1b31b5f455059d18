"""The fit of a run, with all that records, shows, guards and ends it."""

from argparse import Namespace
from collections.abc import Callable

from fastai.callback.core import Callback

from s11_fastai.callbacks.distributed import Processes, TrainTogether
from s11_fastai.callbacks.progress import EpochTable, StepBar, TimeEstimate, say
from s11_fastai.callbacks.recording import KeepCheckpoints, KeepPage, RecordRun
from s11_fastai.callbacks.stopping import GoOnFrom, StopSignals, StopWhenAsked, StopWhenDiverged
from s11_fastai.learner import S11Learner
from s11_fastai.lr_bounds import RANGE_TEST_STEPS, LRBounds, choose_lr_bounds
from s11_fastai.report.pictures import draw_images
from s11_fastai.runs.run import RunFolder


def train(
    learn: S11Learner, run: RunFolder, args: Namespace, signals: StopSignals, processes: Processes
) -> None:
    """Find the bounds where they are not known, then fit one linear cycle, or the rest of it.

    `args` are the flags of `run.py`. This is the first of the `processes`, or the only one.
    """
    steps, evaluations = (args.epochs * len(dl) for dl in learn.dls.loaders)
    to_find = 0 if run.bounds or (args.lr_min and args.lr_max) else RANGE_TEST_STEPS
    left = 1 - run.steps_done / steps
    estimate = TimeEstimate(to_find + left * steps, left * evaluations, learn.dls.device)
    if not run.bounds:
        bar = StepBar("range test", RANGE_TEST_STEPS)
        with run.taken_back_on_error(), learn.added_cbs([bar, estimate]):
            run.write_bounds(choose_lr_bounds(learn, args.lr_min, args.lr_max))
    draw_images(run.path, learn.dls.train.images, args.seed)
    say(f"lr from {run.bounds.lr_min:.3g} up to {run.bounds.lr_max:.3g} and back")

    state = run.saved.learner if run.saved else None
    record, guard = RecordRun(run), StopWhenDiverged(str(run.checkpoints.path))
    checkpoints = KeepCheckpoints(run, record, guard, args.checkpoint_minutes)
    cbs = [
        GoOnFrom(state),
        guard,
        record,
        EpochTable(run, learn.dls.train.images.evaluated_on),
        checkpoints,
        StopWhenAsked(signals, processes, checkpoints.keep),
        KeepPage(run),
        StepBar("training", steps),
        estimate,
    ]
    # From here on all processes stop together, as StopWhenAsked says.
    with signals.patient():
        processes.tell((run.bounds, state))
        _fit(learn, args, run.bounds, cbs, processes)


def assist(
    make_learner: Callable[[], S11Learner],
    args: Namespace,
    signals: StopSignals,
    processes: Processes,
) -> None:
    """In every other process: the same fit on its share of each batch, and nothing else."""
    with signals.patient():
        if (told := processes.hear()) is None:
            processes.leave()
            return
        bounds, state = told
        guard = StopWhenDiverged("the first process's run")
        cbs = [GoOnFrom(state), guard, StopWhenAsked(signals, processes)]
        _fit(make_learner(), args, bounds, cbs, processes)


def _fit(
    learn: S11Learner,
    args: Namespace,
    bounds: LRBounds,
    cbs: list[Callback],
    processes: Processes,
) -> None:
    ratio = bounds.lr_max / bounds.lr_min
    together = [TrainTogether(processes)] if processes.count > 1 else []
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(
            args.epochs,
            bounds.lr_max,
            div=ratio,
            div_final=ratio,
            pct_start=args.peak_epoch / args.epochs,
            cbs=[*together, *cbs],
        )
    processes.leave()
