"""Pictures: arrays in, matplotlib Figures or bytes out; no backend is chosen, no file written."""

from s11_fastai.plots.curves import (
    plot_accuracy,
    plot_clr,
    plot_comparison,
    plot_loss,
    plot_lr_find,
    plot_peaks,
    plot_schedule,
)
from s11_fastai.plots.images import plot_augmented, plot_samples
from s11_fastai.plots.mistakes import (
    plot_confused_pairs,
    plot_grad_cam,
    plot_grad_cam_layers,
    plot_misclassified,
    plot_top_losses,
)
from s11_fastai.plots.statistics import plot_calibration, plot_confusion, plot_per_class
from s11_fastai.plots.style import encoded

__all__ = [
    "encoded",
    "plot_accuracy",
    "plot_augmented",
    "plot_calibration",
    "plot_clr",
    "plot_comparison",
    "plot_confused_pairs",
    "plot_confusion",
    "plot_grad_cam",
    "plot_grad_cam_layers",
    "plot_loss",
    "plot_lr_find",
    "plot_misclassified",
    "plot_peaks",
    "plot_per_class",
    "plot_samples",
    "plot_schedule",
    "plot_top_losses",
]
