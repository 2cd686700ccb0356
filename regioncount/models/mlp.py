"""A multilayer perceptron."""

import math

from torch import nn


def mlp(num_classes: int, in_channels: int, image_size: tuple[int, ...], *, width: int, depth: int = 2) -> nn.Sequential:
    """Return `depth` hidden layers of `width` ReLU units each, and a linear layer.

    Args:
        num_classes: The number of classes.
        in_channels: The channels of an image, or the number of features.
        image_size: Height and width of an image in pixels; () for features.
        width: The units of each hidden layer.
        depth: The number of hidden layers.

    Returns:
        A network from inputs (B, in_channels, *image_size) to logits (B, num_classes).
    """
    layers: list[nn.Module] = [nn.Flatten()]
    features = in_channels * math.prod(image_size)
    for _ in range(depth):
        layers += [nn.Linear(features, width), nn.ReLU()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, num_classes))
