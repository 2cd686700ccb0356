"""MobileNet (Howard et al. 2017) and MobileNetV2 (Sandler et al. 2018)."""

from torch import Tensor, nn

from regioncount.models.layers import classifier, normalized_convolution, projection, scaled

# For each block: output channels, stride.
MOBILENET_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *5 * ((512, 1),),
    *((1024, 2), (1024, 1)),
)

# For each stage: expansion, output channels, number of blocks, stride of the first block.
MOBILENETV2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    """Build MobileNet: images (B, in_channels, H, W) to logits (B, num_classes)."""
    layers: list[nn.Module] = [normalized_convolution(in_channels, width)]
    channels = width
    for published_channels, stride in MOBILENET_BLOCKS:
        out_channels = scaled(published_channels, width, 32)
        layers += [
            normalized_convolution(channels, channels, stride=stride, groups=channels),
            normalized_convolution(channels, out_channels, 1),
        ]
        channels = out_channels
    return nn.Sequential(*layers, classifier(channels, num_classes))


class InvertedResidual(nn.Module):
    """Expansion by a 1x1 convolution, depthwise 3x3 convolution and linear 1x1 convolution.

    As in pytorch-cifar and unlike in the paper, a block of stride 1 that changes the number of channels has a shortcut too.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int):
        super().__init__()
        hidden = expansion * in_channels
        self.residual = nn.Sequential(
            normalized_convolution(in_channels, hidden, 1),
            normalized_convolution(hidden, hidden, stride=stride, groups=hidden),
            normalized_convolution(hidden, out_channels, 1, activation=None),
        )
        self.shortcut = projection(in_channels, out_channels) if stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        residual = self.residual(x)
        return residual if self.shortcut is None else residual + self.shortcut(x)


def mobilenetv2(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    """Build MobileNetV2: images (B, in_channels, H, W) to logits (B, num_classes)."""
    layers: list[nn.Module] = [normalized_convolution(in_channels, width)]
    channels = width
    for expansion, published_channels, depth, first_stride in MOBILENETV2_STAGES:
        out_channels = scaled(published_channels, width, 32)
        for index in range(depth):
            layers.append(InvertedResidual(channels, out_channels, expansion, first_stride if index == 0 else 1))
            channels = out_channels
    last_channels = scaled(1280, width, 32)
    layers.append(normalized_convolution(channels, last_channels, 1))
    return nn.Sequential(*layers, classifier(last_channels, num_classes))
