import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from s11_fastai import S11ResNet, get_dls
from s11_fastai.interpret import (
    Predictions,
    calibration,
    confused_pairs,
    confusion,
    grad_cam,
    misclassified,
    precision_and_recall,
    predict,
    top_losses,
)


@pytest.fixture
def found(rng) -> Predictions:
    """200 predictions of 4 classes, some right."""
    logits = rng.normal(size=(200, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 200)
    logits[np.arange(200), labels] += 1
    return Predictions(logits - np.log(np.exp(logits).sum(1, keepdims=True)), labels)


@pytest.fixture
def model() -> S11ResNet:
    torch.manual_seed(0)
    model = S11ResNet(3, 4)
    model(torch.randn(16, 3, 32, 32))  # statistics for its batch norms
    return model


def test_one_pass_predicts_every_image_in_its_order(images, model):
    dls = get_dls(images, bs=10, device="cpu")
    model.train()
    model.prep[1].eval()  # a mode of its own
    modes = [module.training for module in model.modules()]
    found = predict(model, dls.valid)
    assert [module.training for module in model.modules()] == modes
    assert found.log_probabilities.shape == (24, 3)
    assert found.labels.tolist() == images.valid.labels.tolist()
    x = torch.cat([x for x, _ in dls.valid]).as_subclass(torch.Tensor)
    with torch.no_grad():
        expected = model.eval()(x)
    np.testing.assert_allclose(found.log_probabilities, expected.numpy(), rtol=1e-4, atol=1e-6)
    losses = torch.nn.functional.nll_loss(
        expected, torch.from_numpy(found.labels), reduction="none"
    )
    np.testing.assert_allclose(found.losses, losses.numpy(), rtol=1e-4, atol=1e-6)


def test_misclassified_are_drawn_by_seed_and_none_is_right(found):
    chosen = misclassified(found, 25, seed=3)
    assert len(set(chosen.tolist())) == 25
    assert (found.classes[chosen] != found.labels[chosen]).all()
    assert chosen.tolist() == misclassified(found, 25, seed=3).tolist()
    assert chosen.tolist() != misclassified(found, 25, seed=4).tolist()
    wrong = np.flatnonzero(found.classes != found.labels)
    assert chosen.tolist() != wrong[:25].tolist()
    assert misclassified(found, 10_000).tolist() == wrong.tolist()
    right = found.take(np.flatnonzero(found.classes == found.labels))
    assert misclassified(right).tolist() == []


def test_top_losses_are_the_highest_and_fall(found):
    losses = found.losses[top_losses(found, 25)]
    assert losses.tolist() == sorted(found.losses.tolist(), reverse=True)[:25]


def test_confusion_precision_and_recall_are_scikit_learns(found):
    counts = confusion(found)
    np.testing.assert_array_equal(counts, confusion_matrix(found.labels, found.classes))
    precision, recall = precision_and_recall(found)
    np.testing.assert_allclose(
        precision, precision_score(found.labels, found.classes, average=None)
    )
    np.testing.assert_allclose(recall, recall_score(found.labels, found.classes, average=None))
    all_of_one = Predictions(np.log(np.float32([[0.9, 0.1]] * 3)), np.zeros(3, np.int64))
    assert confusion(all_of_one).tolist() == [[3, 0], [0, 0]]
    np.testing.assert_array_equal(precision_and_recall(all_of_one), [[1, np.nan], [1, np.nan]])


def test_confused_pairs_are_the_most_frequent_mistakes():
    counts = np.array([[90, 3, 7], [0, 99, 1], [7, 0, 93]])
    assert confused_pairs(counts, 3) == [(0, 2, 7), (2, 0, 7), (0, 1, 3)]
    assert confused_pairs(np.diag([5, 5]), 3) == []


def test_calibration_counts_each_image_once_and_its_error_is_the_weighted_gap(found):
    result = calibration(found, n_bins=10)
    assert result.count.sum() == 200
    confidence = np.exp(found.log_probabilities.max(1))
    right = found.classes == found.labels
    gap = 0.0
    for low, high, mean, accuracy in zip(
        result.edges[:-1], result.edges[1:], result.confidence, result.accuracy, strict=True
    ):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            assert mean == pytest.approx(confidence[inside].mean(), rel=1e-6)
            assert accuracy == pytest.approx(right[inside].mean())
            gap += abs(accuracy - mean) * inside.sum() / 200
        else:
            assert np.isnan(mean)
    assert result.error == pytest.approx(gap)


@pytest.mark.parametrize("right", [True, False])
def test_calibration_where_all_is_right_or_wrong_and_sure_to_the_edge(right):
    """A confidence that lies on an edge belongs to the bin below it; certainty to the last."""
    found = Predictions(np.log(np.float32([[0.5, 0.5], [1, 1e-9]])), np.array([1 - right] * 2))
    result = calibration(found, n_bins=4)
    assert result.count.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(result.accuracy, [np.nan, right, np.nan, right])
    assert result.error == pytest.approx(0.25 if right else 0.75)


@pytest.mark.parametrize("layer", ["prep", "layer1", "layer2", "layer3"])
def test_grad_cam_is_the_one_of_the_paper(model, layer):
    """Against a few lines of our own: channel weights are the mean gradients of the logit."""
    x, classes = torch.randn(5, 3, 32, 32), [0, 1, 2, 0, 1]
    maps = grad_cam(model, layer, x, classes)
    model.eval()
    names = ["prep", "layer1", "layer2", "layer3"]
    activations = x
    for name in names[: names.index(layer) + 1]:
        activations = getattr(model, name)(activations)
    activations = activations.detach().requires_grad_()
    out = activations
    for name in names[names.index(layer) + 1 :]:
        out = getattr(model, name)(out)
    logits = model.logit_scale * model.fc(torch.flatten(model.pool(out), 1))
    (gradients,) = torch.autograd.grad(logits[range(5), classes].sum(), activations)
    expected = (gradients.mean((2, 3), keepdim=True) * activations).sum(1).relu()
    np.testing.assert_allclose(maps, expected.detach().numpy(), rtol=1e-4, atol=1e-6)
    assert maps.max() > 0


def test_of_no_image_there_are_no_maps(model):
    assert grad_cam(model, "layer3", torch.empty(0, 3, 32, 32), []).shape == (0, 1, 1)


def test_grad_cam_leaves_no_trace(model):
    x = torch.randn(4, 3, 32, 32)
    weights, given = copy.deepcopy(model.state_dict()), x.clone()
    model.train()
    grad_cam(model, "layer3", x, np.array([0, 1, 2, 0]))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert torch.equal(x, given)
    assert not x.requires_grad


def test_grad_cam_follows_the_class(model):
    x = torch.randn(2, 3, 32, 32)
    assert not np.allclose(
        grad_cam(model, "layer3", x, [0, 0]), grad_cam(model, "layer3", x, [1, 1])
    )
