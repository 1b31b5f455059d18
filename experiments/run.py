"""The whole assignment: images in; a trained network, its record and its pictures out.

python experiments/run.py                             # CIFAR-10, fetched once
python experiments/run.py --demo                      # digits, offline, two minutes on a laptop
python experiments/run.py --out runs/full --resume    # start it, resume it, or see it finished
torchrun --nproc_per_node 2 experiments/run.py --out runs/full --resume
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import s11_fastai as s11  # each name is loaded when it is first used, so that --help is instant
from s11_fastai.cli import command_line, run_flags

if TYPE_CHECKING:
    from s11_fastai.learner import S11Learner


def main(argv: list[str] | None = None) -> S11Learner | None:
    """Run the experiment that the flags describe and return its Learner.

    Every process of a run goes through this; the main one alone writes and speaks.
    """
    with command_line(__file__, argv) as signals:
        settings, options = run_flags(argv, __doc__)
        out = options.out or s11.default_path(settings.data)
        with (
            s11.join_processes(settings.device, signals) as processes,
            s11.claim(
                out,
                resume=options.resume,
                or_next=options.out is None,
                is_main=processes.is_main,
            ) as folder,
        ):
            if folder.finished:
                s11.say(folder.finished)
                if not sys.flags.interactive:
                    return None
                return s11.load_run(out, data=settings.data, device=settings.device)
            images = processes.main_first(
                lambda: s11.load_images(settings.data, settings.holdout, size=settings.resize)
            )
            if processes.is_main:
                s11.say("\n".join([images.describe(), *images.notes]))
            s11.set_seed(settings.seed)
            dls = s11.get_dls(images, settings.bs, seed=settings.seed, device=processes.device)
            learn = s11.s11_learner(
                dls,
                s11.S11ResNet(dls.c, settings.width, settings.logit_scale),
                momentum=settings.momentum,
                wd=settings.wd,
                label_smoothing=settings.label_smoothing,
                precision=settings.precision,
            )
            run = s11.start_run(
                folder, settings, learn, images, processes, signals, options.checkpoint_minutes
            )
            with s11.RunReport(run) as report, learn.no_bar(), learn.no_logging():
                bounds = run.find_bounds(
                    lambda: s11.find_lr_bounds(learn, settings.lr_min, settings.lr_max)
                )
                learn.fit_one_cycle(
                    settings.epochs,
                    bounds.lr_max,
                    div=bounds.ratio,
                    div_final=bounds.ratio,
                    pct_start=settings.pct_start,
                    cbs=[*run.callbacks(), *report.callbacks()],
                )
                run.finish(report.draw)
    return learn


if __name__ == "__main__":
    learn = main()
