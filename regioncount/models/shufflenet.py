"""ShuffleNetV2 at scale 1x (Ma et al. 2018)."""

import torch
from torch import Tensor, nn

from regioncount.models.layers import classifier, normalized_convolution, scaled

# For each stage: output channels, number of blocks. The first block halves the image size.
STAGES = ((116, 4), (232, 8), (464, 4))


def shuffle(x: Tensor) -> Tensor:
    """Interleave the two halves of the channels of x (B, C, H, W), in the order 0, C/2, 1, C/2 + 1, ..."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def main_branch(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return a 1x1 convolution, a depthwise 3x3 convolution and a 1x1 convolution."""
    return nn.Sequential(
        normalized_convolution(in_channels, out_channels, 1),
        normalized_convolution(out_channels, out_channels, stride=stride, groups=out_channels, activation=None),
        normalized_convolution(out_channels, out_channels, 1),
    )


class SplitBlock(nn.Module):
    """A block that applies convolutions to one half of the channels and leaves the other half unchanged."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch = main_branch(channels // 2, channels // 2, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        unchanged, convolved = x.chunk(2, dim=1)
        return shuffle(torch.cat([unchanged, self.branch(convolved)], dim=1))


class DownBlock(nn.Module):
    """A block that halves the image size. Each of two branches computes half of the output channels from the whole input."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.left = nn.Sequential(
            normalized_convolution(in_channels, in_channels, stride=2, groups=in_channels, activation=None),
            normalized_convolution(in_channels, out_channels // 2, 1),
        )
        self.right = main_branch(in_channels, out_channels // 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / 2, W / 2)."""
        return shuffle(torch.cat([self.left(x), self.right(x)], dim=1))


def shufflenetv2(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    """Build ShuffleNetV2: images (B, in_channels, H, W) to logits (B, num_classes)."""
    layers: list[nn.Module] = [normalized_convolution(in_channels, width)]
    channels = width
    for published_channels, depth in STAGES:
        out_channels = scaled(published_channels, width, 24, divisor=2)
        layers.append(DownBlock(channels, out_channels))
        layers += [SplitBlock(out_channels) for _ in range(depth - 1)]
        channels = out_channels
    last_channels = scaled(1024, width, 24)
    layers.append(normalized_convolution(channels, last_channels, 1))
    return nn.Sequential(*layers, classifier(last_channels, num_classes))
