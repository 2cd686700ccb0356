"""Layers shared by several network families."""

from torch import Tensor, nn


def scaled(channels: int, width: int, default_width: int, divisor: int = 1) -> int:
    """Scale the channels of a layer with the width of the network.

    Args:
        channels: The channels of the layer in the published network.
        width: The channels of the first convolution.
        default_width: The channels of the first convolution in the published network.
        divisor: The result is a multiple of it, as grouped convolutions and channel splits require.

    Returns:
        The multiple of `divisor`, at least `divisor`, that is nearest to channels * width / default_width.
    """
    return divisor * max(1, round(channels * width / (default_width * divisor)))


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """Return a convolution without bias, padded to keep the image size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)


def normalized_convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Return a convolution, batch normalization and, unless it is None, an activation."""
    layers = [convolution(in_channels, out_channels, kernel_size, stride, groups), nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*layers) if activation is None else nn.Sequential(*layers, activation())


def projection(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """Return the shortcut of a residual block: the identity if shapes allow it, else a 1x1 convolution and normalization."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return normalized_convolution(in_channels, out_channels, 1, stride, activation=None)


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate in (0, 1) that is computed from the means of all channels (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed_channels: int, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed_channels, 1),
            activation(),
            nn.Conv2d(squeezed_channels, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x * self.gate(x)


def classifier(channels: int, num_classes: int) -> nn.Sequential:
    """Return global average pooling and a linear layer: features (B, channels, H, W) to logits (B, num_classes)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
