"""The pieces that several families share."""

from torch import nn


def scaled(channels: int, width: int, default_width: int, divisor: int = 1) -> int:
    """Channels, at first-convolution width `width`, of a layer that has `channels` of them at `default_width`.

    The nearest multiple of `divisor`, and at least one of it, so that groups and channel splits stay valid.
    """
    return divisor * max(1, round(channels * width / (default_width * divisor)))


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """A convolution without bias that keeps the image size (at stride 1)."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)


def normalized_convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution, batch normalization and, unless None, activation."""
    layers = [convolution(in_channels, out_channels, kernel_size, stride, groups), nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*layers) if activation is None else nn.Sequential(*layers, activation())


def projection(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """The shortcut of a residual block: the identity where shapes allow it, else a normalized 1x1 convolution."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return normalized_convolution(in_channels, out_channels, 1, stride, activation=None)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate in (0, 1) computed from the means of all channels (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed_channels: int, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed_channels, 1),
            activation(),
            nn.Conv2d(squeezed_channels, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.gate(x)


def classifier(channels: int, num_classes: int) -> nn.Sequential:
    """Global average pooling and a linear layer: any image size, logits (B, num_classes)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
