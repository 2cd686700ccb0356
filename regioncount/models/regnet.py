"""RegNetX-200MF (Radosavovic et al. 2020)."""

from torch import Tensor, nn

from regioncount.models.layers import classifier, normalized_convolution, projection, scaled

# For each stage: output channels, number of blocks, stride of the first block.
STAGES = ((24, 1, 1), (56, 1, 1), (152, 4, 2), (368, 7, 2))
GROUP_WIDTH = 8  # channels in a group of the 3x3 convolutions


class Block(nn.Module):
    """A residual block of 1x1, grouped 3x3 and 1x1 convolutions, all with `out_channels` channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.shortcut = projection(in_channels, out_channels, stride)
        self.residual = nn.Sequential(
            normalized_convolution(in_channels, out_channels, 1),
            normalized_convolution(out_channels, out_channels, stride=stride, groups=out_channels // GROUP_WIDTH),
            normalized_convolution(out_channels, out_channels, 1, activation=None),
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        return self.activation(self.shortcut(x) + self.residual(x))


def regnetx_200mf(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    """Build RegNetX-200MF: images (B, in_channels, H, W) to logits (B, num_classes)."""
    layers: list[nn.Module] = [normalized_convolution(in_channels, width)]
    channels = width
    for published_channels, depth, first_stride in STAGES:
        out_channels = scaled(published_channels, width, 64, divisor=GROUP_WIDTH)
        for index in range(depth):
            layers.append(Block(channels, out_channels, first_stride if index == 0 else 1))
            channels = out_channels
    return nn.Sequential(*layers, classifier(channels, num_classes))
