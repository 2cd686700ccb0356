"""VGG-19 (Simonyan and Zisserman 2015) with batch normalization and with one linear layer instead of three."""

from torch import nn

from regioncount.models.layers import classifier, scaled

# For each stage: output channels, number of convolutions. Max pooling at its end halves the image size.
STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


def vgg19(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    """Build VGG-19: images (B, in_channels, H, W) of at least 32 x 32 pixels to logits (B, num_classes)."""
    layers: list[nn.Module] = []
    channels = in_channels
    for published_channels, depth in STAGES:
        out_channels = scaled(published_channels, width, 64)
        for _ in range(depth):
            # Batch normalization makes the bias redundant; it is kept, so that parameters match the published network.
            layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()]
            channels = out_channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, classifier(channels, num_classes))
