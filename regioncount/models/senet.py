"""A squeeze-and-excitation network (Hu et al. 2018) with pre-activation residual blocks (He et al. 2016)."""

from torch import Tensor, nn

from regioncount.models.layers import SqueezeExcitation, convolution
from regioncount.models.resnet import residual_network


class PreActivationBlock(nn.Module):
    """A residual block of two 3x3 convolutions, each after batch normalization and ReLU, and squeeze-excitation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.residual = nn.Sequential(
            convolution(in_channels, out_channels, stride=stride),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            convolution(out_channels, out_channels),
            SqueezeExcitation(out_channels, max(1, out_channels // 16)),
        )
        same_shape = in_channels == out_channels and stride == 1
        self.shortcut = None if same_shape else convolution(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        activated = self.activate(x)
        # An identity shortcut takes the block's input; a projection takes the activated input.
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return self.residual(activated) + shortcut


def senet18(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    """Build SENet-18: images (B, in_channels, H, W) to logits (B, num_classes)."""
    return residual_network(PreActivationBlock, (2, 2, 2, 2), num_classes, in_channels, width)
