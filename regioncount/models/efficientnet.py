"""EfficientNet-B0 (Tan and Le 2019) without its last 1x1 convolution."""

import torch
from torch import nn

from regioncount.models.layers import SqueezeExcitation, classifier, normalized_convolution, scaled

# Expansion, output channels, blocks, kernel size and first stride of each stage.
STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
DROP_CONNECT = 0.2  # reached linearly, from 0 at the first block
DROPOUT = 0.2


class DropConnect(nn.Module):
    """In training, sets x (B, ...) to zero for a random share `rate` of the items and scales up the others."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), *(1,) * (x.ndim - 1), device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze-excitation, linear 1x1 convolution; a shortcut if shapes allow it."""

    def __init__(
        self, in_channels: int, out_channels: int, expansion: int, kernel_size: int, stride: int, drop_connect: float
    ):
        super().__init__()
        hidden = expansion * in_channels
        # pytorch-cifar makes the expansion of the first block (expansion 1) but does not use it. Kept, so that the
        # parameters are those of the published network; these few never receive a gradient.
        self.expand = normalized_convolution(in_channels, hidden, 1, activation=nn.SiLU)
        self.uses_expansion = expansion != 1
        self.residual = nn.Sequential(
            normalized_convolution(hidden, hidden, kernel_size, stride, groups=hidden, activation=nn.SiLU),
            SqueezeExcitation(hidden, max(1, in_channels // 4), nn.SiLU),
            normalized_convolution(hidden, out_channels, 1, activation=None),
        )
        has_shortcut = stride == 1 and in_channels == out_channels
        self.drop_connect = DropConnect(drop_connect) if has_shortcut else None

    def forward(self, x):
        residual = self.residual(self.expand(x) if self.uses_expansion else x)
        return residual if self.drop_connect is None else x + self.drop_connect(residual)


def efficientnet_b0(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    layers: list[nn.Module] = [normalized_convolution(in_channels, width, activation=nn.SiLU)]
    channels = width
    total_blocks = sum(depth for _, _, depth, _, _ in STAGES)
    for expansion, published_channels, depth, kernel_size, first_stride in STAGES:
        out_channels = scaled(published_channels, width, 32)
        for index in range(depth):
            stride = first_stride if index == 0 else 1
            drop_connect = DROP_CONNECT * (len(layers) - 1) / total_blocks
            layers.append(InvertedResidual(channels, out_channels, expansion, kernel_size, stride, drop_connect))
            channels = out_channels
    # Dropout comes after the pooling, right before the linear layer.
    pooling, flatten, linear = classifier(channels, num_classes)
    return nn.Sequential(*layers, pooling, flatten, nn.Dropout(DROPOUT), linear)
