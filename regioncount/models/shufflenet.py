"""ShuffleNetV2 at scale 1x (Ma et al. 2018)."""

import torch
from torch import nn

from regioncount.models.layers import classifier, normalized_convolution, scaled

CHANNELS_AND_DEPTHS = ((116, 4), (232, 8), (464, 4))  # one pair a stage; each begins by halving the image


def shuffle(x: torch.Tensor) -> torch.Tensor:
    """Interleaves the two halves of the channels of x (B, C, H, W): 0, C/2, 1, C/2 + 1, ..."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def main_branch(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        normalized_convolution(in_channels, out_channels, 1),
        normalized_convolution(out_channels, out_channels, stride=stride, groups=out_channels, activation=None),
        normalized_convolution(out_channels, out_channels, 1),
    )


class SplitBlock(nn.Module):
    """Half of the channels passes by, the other half goes through the convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch = main_branch(channels // 2, channels // 2, stride=1)

    def forward(self, x):
        passing, changing = x.chunk(2, dim=1)
        return shuffle(torch.cat([passing, self.branch(changing)], dim=1))


class DownBlock(nn.Module):
    """Both halves of the output are computed from the whole input, at half the image size."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.left = nn.Sequential(
            normalized_convolution(in_channels, in_channels, stride=2, groups=in_channels, activation=None),
            normalized_convolution(in_channels, out_channels // 2, 1),
        )
        self.right = main_branch(in_channels, out_channels // 2, stride=2)

    def forward(self, x):
        return shuffle(torch.cat([self.left(x), self.right(x)], dim=1))


def shufflenetv2(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    layers: list[nn.Module] = [normalized_convolution(in_channels, width)]
    channels = width
    for published_channels, depth in CHANNELS_AND_DEPTHS:
        out_channels = scaled(published_channels, width, 24, divisor=2)
        layers.append(DownBlock(channels, out_channels))
        layers += [SplitBlock(out_channels) for _ in range(depth - 1)]
        channels = out_channels
    last_channels = scaled(1024, width, 24)
    layers.append(normalized_convolution(channels, last_channels, 1))
    return nn.Sequential(*layers, classifier(last_channels, num_classes))
