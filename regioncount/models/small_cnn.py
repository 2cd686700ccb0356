"""A convolutional network for small images, such as digits of 8 x 8 pixels, that trains fast on a CPU."""

from torch import nn

from regioncount.models.layers import classifier, normalized_convolution


def small_cnn(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    """Build three convolutions and a linear layer: images (B, in_channels, H, W), H, W >= 4, to logits (B, num_classes)."""
    return nn.Sequential(
        normalized_convolution(in_channels, width),
        nn.MaxPool2d(2),
        normalized_convolution(width, 2 * width),
        nn.MaxPool2d(2),
        normalized_convolution(2 * width, 4 * width),
        classifier(4 * width, num_classes),
    )
