import pytest
import torch
from torch import nn
from torch.nn import functional as F

from s11_fastai import S11ResNet
from s11_fastai.model import Residual


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_the_assignments():
    model = S11ResNet()
    assert parameters(model) == 6_574_090
    table = {name: parameters(child) for name, child in model.named_children()}
    assert table == {
        "prep": 1_920,
        "layer1": 369_536,
        "layer2": 295_680,
        "layer3": 5_901_824,
        "pool": 0,
        "fc": 5_130,
    }


def test_children_come_in_the_assignments_order():
    names = [type(m).__name__ for m in S11ResNet(width=2).layer1]
    assert names == ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU", "Residual"]
    assert [type(m).__name__ for m in S11ResNet(width=2).layer2] == names[:4]


def test_residual_adds_its_input_once():
    block = Residual(4)
    for parameter in block.branch.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("w", [1, 16, 64])
def test_width_scales_every_layer(w):
    def conv(n_in, n_out, bias):
        return 9 * n_in * n_out + bias * n_out + 2 * n_out  # and its batch norm

    outside = conv(3, w, 1) + conv(w, 2 * w, 1) + conv(2 * w, 4 * w, 1) + conv(4 * w, 8 * w, 1)
    branches = 2 * conv(2 * w, 2 * w, 0) + 2 * conv(8 * w, 8 * w, 0)
    assert parameters(S11ResNet(width=w)) == outside + branches + 10 * 8 * w + 10


@pytest.mark.parametrize("n_classes", [1, 3, 10, 100])
def test_forward_gives_log_probabilities(n_classes):
    model = S11ResNet(n_classes, width=2)
    x = torch.randn(4, 3, 32, 32)
    out = model(x)
    assert out.shape == (4, n_classes)
    torch.testing.assert_close(out.exp().sum(1), torch.ones(4))
    assert torch.equal(model.eval()(x), F.log_softmax(model.logits(x), dim=-1))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_at_32_the_last_pool_is_the_assignments_to_the_bit(memory):
    torch.manual_seed(0)
    model = S11ResNet(width=4)
    x = torch.randn(8, 3, 32, 32).to(memory_format=memory)
    found = []
    for pool in (model.pool, nn.MaxPool2d(4)):
        model.pool = pool
        model.zero_grad()
        model(x)[:, 0].sum().backward()
        found.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("side", [8, 28, 32, 40, 64, 224])
def test_images_of_other_sides_are_named_too(side):
    assert S11ResNet(width=1)(torch.randn(2, 3, side, side)).shape == (2, 10)
