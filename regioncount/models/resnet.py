"""Residual networks (He et al. 2016, "Deep Residual Learning for Image Recognition")."""

from torch import nn

from regioncount.models.layers import classifier, normalized_convolution, projection


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.residual = nn.Sequential(
            normalized_convolution(in_channels, out_channels, stride=stride),
            normalized_convolution(out_channels, out_channels, activation=None),
        )
        self.shortcut = projection(in_channels, out_channels, stride)
        self.activation = nn.ReLU()

    def forward(self, x):
        return self.activation(self.residual(x) + self.shortcut(x))


def residual_network(
    block: type[nn.Module], depths: tuple[int, ...], num_classes: int, in_channels: int, width: int
) -> nn.Sequential:
    """A stem, stages of `depths` blocks, a classifier; later stages halve the image and double the channels."""
    layers: list[nn.Module] = [normalized_convolution(in_channels, width)]
    channels = width
    for stage, depth in enumerate(depths):
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            layers.append(block(channels, width * 2**stage, stride))
            channels = width * 2**stage
    return nn.Sequential(*layers, classifier(channels, num_classes))


def resnet18(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    return residual_network(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, width)


def resnet34(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    return residual_network(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, width)
