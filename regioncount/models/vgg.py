"""VGG-19 with batch normalization (Simonyan and Zisserman 2015), one linear layer instead of three."""

from torch import nn

from regioncount.models.layers import classifier, scaled

CHANNELS_AND_DEPTHS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # one pair a stage; each ends in pooling


def vgg19(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    """Halves the image five times, so it needs at least 32 x 32 pixels."""
    layers = []
    channels = in_channels
    for published_channels, depth in CHANNELS_AND_DEPTHS:
        out_channels = scaled(published_channels, width, 64)
        for _ in range(depth):
            # The bias does nothing before batch normalization; it is here because the published network has it.
            layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()]
            channels = out_channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, classifier(channels, num_classes))
