"""A multilayer perceptron."""

from torch import nn


def mlp(num_classes: int, in_channels: int, image_size: tuple[int, int], *, width: int, depth: int = 2) -> nn.Sequential:
    """`depth` hidden layers of `width` ReLU units each; takes images of `image_size` (height, width) only."""
    height, image_width = image_size
    layers = [nn.Flatten()]
    features = in_channels * height * image_width
    for _ in range(depth):
        layers += [nn.Linear(features, width), nn.ReLU()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, num_classes))
