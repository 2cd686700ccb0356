"""EfficientNet-B0 (Tan and Le 2019) as in pytorch-cifar: without the last 1x1 convolution."""

import torch
from torch import Tensor, nn

from regioncount.models.layers import SqueezeExcitation, classifier, normalized_convolution, scaled

# For each stage: expansion, output channels, number of blocks, kernel size, stride of the first block.
STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
DROP_CONNECT = 0.2  # the rate grows linearly with depth, from 0 at the first block
DROPOUT = 0.2


class DropConnect(nn.Module):
    """Set each item of a batch to zero with probability `rate` in training, and scale the others by 1 / (1 - rate)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, ...) to (B, ...)."""
        if not self.training or self.rate == 0:
            return x
        keep_mask = torch.rand(len(x), *(1,) * (x.ndim - 1), device=x.device) >= self.rate
        return x * keep_mask / (1 - self.rate)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze-excitation, linear 1x1 convolution, and a shortcut if shapes allow it."""

    def __init__(
        self, in_channels: int, out_channels: int, expansion: int, kernel_size: int, stride: int, drop_connect: float
    ):
        super().__init__()
        hidden = expansion * in_channels
        # pytorch-cifar creates the expansion of the first block (expansion 1) but does not use it. It is kept, so that
        # parameters match the published network; it never receives a gradient.
        self.expand = normalized_convolution(in_channels, hidden, 1, activation=nn.SiLU)
        self.uses_expansion = expansion != 1
        self.residual = nn.Sequential(
            normalized_convolution(hidden, hidden, kernel_size, stride, groups=hidden, activation=nn.SiLU),
            SqueezeExcitation(hidden, max(1, in_channels // 4), nn.SiLU),
            normalized_convolution(hidden, out_channels, 1, activation=None),
        )
        has_shortcut = stride == 1 and in_channels == out_channels
        self.drop_connect = DropConnect(drop_connect) if has_shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        residual = self.residual(self.expand(x) if self.uses_expansion else x)
        return residual if self.drop_connect is None else x + self.drop_connect(residual)


def efficientnet_b0(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    """Build EfficientNet-B0: images (B, in_channels, H, W) to logits (B, num_classes)."""
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
    # Dropout goes between the pooling and the linear layer.
    pooling, flatten, linear = classifier(channels, num_classes)
    return nn.Sequential(*layers, pooling, flatten, nn.Dropout(DROPOUT), linear)
