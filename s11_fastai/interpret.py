"""What a trained network says of images, as arrays: predictions, mistakes, Grad-CAM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor, nn

from s11_fastai.errors import S11Error

_MISCLASSIFIED_STREAM = 2


@dataclass(frozen=True, eq=False)
class Predictions:
    """For N images and C classes: log-probabilities, float32 (N, C), and labels, int64 (N,)."""

    log_probabilities: np.ndarray
    labels: np.ndarray

    @property
    def n_classes(self) -> int:
        """C."""
        return self.log_probabilities.shape[1]

    @property
    def classes(self) -> np.ndarray:
        """The predicted class of each image, (N,)."""
        return self.log_probabilities.argmax(axis=1)

    @property
    def losses(self) -> np.ndarray:
        """The loss of each image in nats, (N,)."""
        return -self.log_probabilities[np.arange(len(self.labels)), self.labels]

    def probability(self, classes: np.ndarray) -> np.ndarray:
        """The probability given to one class of each image, (N,)."""
        return np.exp(self.log_probabilities[np.arange(len(classes)), classes])

    def take(self, indices: np.ndarray) -> Predictions:
        """Those of some images."""
        return Predictions(self.log_probabilities[indices], self.labels[indices])


def finite(found: Predictions) -> Predictions:
    """The same predictions; raises S11Error where one is infinite or NaN."""
    if not np.isfinite(found.log_probabilities).all():
        raise S11Error("the network gives no finite numbers: its weights are of no use")
    return found


def predict(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Predictions:
    """One pass over batches of (images, labels); only what is predicted is kept.

    `model` gives log-probabilities; its mode is left as it was. It computes in float32.
    """
    outputs, labels = [], []
    with _evaluating(model), whole_float32(), torch.inference_mode():
        for images, truth in batches:
            outputs.append(model(images.as_subclass(Tensor)).float().cpu())
            labels.append(truth.as_subclass(Tensor).cpu())
    return Predictions(torch.cat(outputs).numpy(), torch.cat(labels).numpy())


def misclassified(predictions: Predictions, n: int = 25, seed: int = 0) -> np.ndarray:
    """The indices of `n` misclassified images, or of all where there are fewer, drawn by seed.

    An index is the place among the predictions. Those of `dls.valid` are what `learn.predict` and
    `dls.test_dl` take.
    """
    wrong = np.flatnonzero(predictions.classes != predictions.labels)
    rng = np.random.default_rng([seed, _MISCLASSIFIED_STREAM])
    return np.sort(rng.choice(wrong, min(n, len(wrong)), replace=False))


def top_losses(predictions: Predictions, n: int = 25) -> np.ndarray:
    """The indices of the `n` images with the highest losses, as `misclassified` has them, the
    highest first."""
    return np.argsort(-predictions.losses, kind="stable")[:n]


def confusion(predictions: Predictions) -> np.ndarray:
    """Counts of images, int64 (C, C): a row for each actual class, a column for each predicted."""
    return confusion_matrix(
        predictions.labels, predictions.classes, labels=range(predictions.n_classes)
    )


def precision_and_recall(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of each class, fractions, float (C,).

    Of those predicted as the class, how many are of it; of those of the class, how many are
    predicted as it. NaN where there are none.
    """
    precision, recall, _, _ = precision_recall_fscore_support(
        predictions.labels,
        predictions.classes,
        labels=range(predictions.n_classes),
        zero_division=np.nan,
    )
    return precision, recall


def confused_pairs(counts: np.ndarray, n: int) -> list[tuple[int, int, int]]:
    """The `n` most frequent mistakes as (actual, predicted, count), the most frequent first."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:n]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(a), int(b), int(wrong[a, b])) for a, b in pairs if wrong[a, b]]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Bins of predictions by their confidence: edges (B+1,), and of each bin, (B,), mean
    confidence, accuracy (both NaN where it is empty) and count; and the expected error."""

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    error: float


def calibration(predictions: Predictions, n_bins: int = 15) -> Calibration:
    """How often predictions of a given confidence are right; `error` weights bins by count.

    Source: Guo et al., arXiv:1706.04599, section 2.
    """
    from sklearn.calibration import calibration_curve  # it takes half a second

    confidence = np.exp(predictions.log_probabilities.max(axis=1).astype(float)).clip(max=1)
    right = predictions.classes == predictions.labels
    edges = np.linspace(0, 1, n_bins + 1)
    # As calibration_curve, which leaves empty bins out, and does not count.
    count = np.bincount(np.searchsorted(edges[1:-1], confidence), minlength=n_bins)
    means, accuracy = np.full((2, n_bins), np.nan)
    accuracy[count > 0], means[count > 0] = calibration_curve(right, confidence, n_bins=n_bins)
    error = float(np.nansum(count * np.abs(accuracy - means)) / count.sum())
    return Calibration(edges, means, accuracy, count, error)


def grad_cam(
    model: nn.Module, layer: str, images: Tensor, classes: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Grad-CAM of one child of the network for one class of each image: float32 (n, h, w), >= 0.

    `images` are as the network takes them, (n, 3, H, W); h and w are the layer's. It is computed
    on the logits where `model` has `logits`, else on what it gives. The network's mode, gradients
    and hooks are left as they were. Source: Selvaraju et al., arXiv:1610.02391; captum's
    LayerGradCam. Of no image there are no maps, (0, 1, 1).
    """
    if not len(images):
        return np.empty((0, 1, 1), np.float32)
    from captum.attr import LayerGradCam

    cam = LayerGradCam(getattr(model, "logits", model), model.get_submodule(layer))
    targets = torch.as_tensor(np.asarray(classes), device=images.device)
    with _evaluating(model):
        maps = cam.attribute(images.as_subclass(Tensor), targets, relu_attributions=True)
    return maps[:, 0].detach().cpu().numpy()


@contextmanager
def whole_float32() -> Iterator[None]:
    """Convolutions of float32 in float32 on GPUs too, where cuDNN's default is TF32.

    TF32 has 10 bits of the 23: it would give some of the images another class than a CPU does.
    """
    cudnn = torch.backends.cudnn
    conv = cudnn.conv  # type: ignore[attr-defined]  # not in its stubs
    kept = conv.fp32_precision
    try:
        allowed = cudnn.allow_tf32
    except RuntimeError:  # torch refuses to read the older name once the newer one has been set
        allowed = None
    if allowed is not None:
        cudnn.allow_tf32 = False  # both are set, so that others may go on reading the older one
    conv.fp32_precision = "ieee"
    try:
        yield
    finally:
        conv.fp32_precision = kept
        if allowed is not None:
            cudnn.allow_tf32 = allowed


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, after which every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
