from s11_fastai.learner import n_parameters
from s11_fastai.model import S11ResNet
from s11_fastai.report.network import layers


def test_the_layers_are_those_of_the_assignment():
    """The table of `model.py`."""
    assert [(layer.name, layer.shape, layer.parameters) for layer in layers(10, 64)] == [
        ("prep", (64, 32, 32), 1_920),
        ("layer1", (128, 16, 16), 369_536),
        ("layer2", (256, 8, 8), 295_680),
        ("layer3", (512, 4, 4), 5_901_824),
        ("pool", (512, 1, 1), 0),
        ("fc", (10,), 5_130),
    ]
    assert layers(10, 64)[1].modules == (
        "Conv2d, MaxPool2d, BatchNorm2d, ReLU, "
        "X + (Conv2d, BatchNorm2d, ReLU, Conv2d, BatchNorm2d, ReLU)"
    )


def test_they_follow_width_classes_and_size():
    assert sum(layer.parameters for layer in layers(2, 1)) == n_parameters(S11ResNet(2, 1))
    assert [layer.shape for layer in layers(2, 1, side=64)][3:5] == [(8, 8, 8), (8, 1, 1)]
