"""Residual networks (He et al. 2016, "Deep Residual Learning for Image Recognition")."""

from collections.abc import Callable

from torch import Tensor, nn

from regioncount.models.layers import classifier, normalized_convolution, projection


class BasicBlock(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.residual = nn.Sequential(
            normalized_convolution(in_channels, out_channels, stride=stride),
            normalized_convolution(out_channels, out_channels, activation=None),
        )
        self.shortcut = projection(in_channels, out_channels, stride)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        return self.activation(self.residual(x) + self.shortcut(x))


def residual_network(
    block: Callable[[int, int, int], nn.Module],
    depths: tuple[int, ...],
    num_classes: int,
    in_channels: int,
    width: int,
    stem: str = "cifar",
) -> nn.Sequential:
    """Build a residual network; each stage after the first halves the image size and doubles the channels.

    Args:
        block: Builds a block from its input channels, output channels and stride.
        depths: The number of blocks in each stage.
        num_classes: The number of classes.
        in_channels: The channels of an image.
        width: The channels of the first convolution and of the first stage.
        stem: "cifar", a 3x3 convolution; or "imagenet", one of stride 2, followed by 3x3 max pooling of stride 2.

    Returns:
        A network from images (B, in_channels, H, W) to logits (B, num_classes).
    """
    layers: list[nn.Module] = [normalized_convolution(in_channels, width, stride=2 if stem == "imagenet" else 1)]
    if stem == "imagenet":
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    channels = width
    for stage, depth in enumerate(depths):
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            layers.append(block(channels, width * 2**stage, stride))
            channels = width * 2**stage
    return nn.Sequential(*layers, classifier(channels, num_classes))


def resnet18(num_classes: int, in_channels: int, *, width: int, stem: str = "cifar") -> nn.Sequential:
    """Build ResNet-18: images (B, in_channels, H, W) to logits (B, num_classes)."""
    return residual_network(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, width, stem)


def resnet34(num_classes: int, in_channels: int, *, width: int, stem: str = "cifar") -> nn.Sequential:
    """Build ResNet-34: images (B, in_channels, H, W) to logits (B, num_classes)."""
    return residual_network(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, width, stem)
