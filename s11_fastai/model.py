"""The assignment's ResNet.

| child   | layers                                          | out, width 64 | parameters |
|---------|-------------------------------------------------|---------------|-----------:|
| prep    | conv-BN-ReLU                                    | 64 x 32 x 32  |      1,920 |
| layer1  | conv-MaxPool2-BN-ReLU, X + (conv-BN-ReLU) x2    | 128 x 16 x 16 |    369,536 |
| layer2  | conv-MaxPool2-BN-ReLU                           | 256 x 8 x 8   |    295,680 |
| layer3  | conv-MaxPool2-BN-ReLU, X + (conv-BN-ReLU) x2    | 512 x 4 x 4   |  5,901,824 |
| pool    | MaxPool over all that is left, 4 x 4            | 512           |          0 |
| fc      | linear, then log-softmax                        | 10            |      5,130 |
|         |                                                 |               |  6,574,090 |

All convolutions are 3x3 with padding 1. The four outside the residual branches have a bias.
Source: session 11 of the EVA course, after David C. Page's "How to Train Your ResNet".
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class S11ResNet(nn.Module):
    """The assignment's ResNet: 6,574,090 parameters at the defaults.

    `forward` takes float images, shape (N, 3, H, W), 32x32 in the assignment and no smaller than
    8x8, and gives log-probabilities, shape (N, n_classes), in float32 whatever the precision of
    the layers. `width` is the number of channels of `prep`; all others are multiples of it.
    `logit_scale` is a constant factor on the logits: 1 is the assignment's plain network, 0.125
    trains better (David C. Page's, results/study/README.md).
    """

    def __init__(self, n_classes: int = 10, width: int = 64, logit_scale: float = 0.125) -> None:
        super().__init__()
        self.width, self.logit_scale = width, logit_scale
        self.prep = nn.Sequential(_conv(3, width, bias=True), nn.BatchNorm2d(width), nn.ReLU())
        self.layer1 = nn.Sequential(*_down(width, 2 * width), Residual(2 * width))
        self.layer2 = nn.Sequential(*_down(2 * width, 4 * width))
        self.layer3 = nn.Sequential(*_down(4 * width, 8 * width), Residual(8 * width))
        self.pool = GlobalMaxPool()
        self.fc = nn.Linear(8 * width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.logits(x).float(), dim=-1)

    def logits(self, x: Tensor) -> Tensor:
        """The scaled output of the last linear layer, shape (N, n_classes), before log-softmax."""
        x = self.layer3(self.layer2(self.layer1(self.prep(x))))
        return self.logit_scale * self.fc(torch.flatten(self.pool(x), 1))


class GlobalMaxPool(nn.Module):
    """The largest value of each channel, (N, channels, 1, 1): at 4x4 the assignment's MaxPool4."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, x.shape[-2:])


class Residual(nn.Module):
    """X + branch(X), the branch being conv-BN-ReLU twice; the shape stays (N, channels, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*_conv_bn_relu(channels), *_conv_bn_relu(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def _conv(n_in: int, n_out: int, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel_size=3, padding=1, bias=bias)


def _conv_bn_relu(channels: int) -> list[nn.Module]:
    return [_conv(channels, channels, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]


def _down(n_in: int, n_out: int) -> list[nn.Module]:
    return [_conv(n_in, n_out, bias=True), nn.MaxPool2d(2), nn.BatchNorm2d(n_out), nn.ReLU()]
