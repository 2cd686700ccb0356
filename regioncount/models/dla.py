"""The simplified deep layer aggregation network (Yu et al. 2018) of pytorch-cifar."""

import torch
from torch import Tensor, nn

from regioncount.models.layers import classifier, normalized_convolution
from regioncount.models.resnet import BasicBlock


class Tree(nn.Module):
    """A binary tree of residual blocks of depth `levels`; a 1x1 convolution merges the outputs of the two subtrees."""

    def __init__(self, in_channels: int, out_channels: int, levels: int, stride: int):
        super().__init__()
        if levels == 1:
            self.left = BasicBlock(in_channels, out_channels, stride)
            self.right = BasicBlock(out_channels, out_channels)
        else:
            self.left = Tree(in_channels, out_channels, levels - 1, stride)
            self.right = Tree(out_channels, out_channels, levels - 1, stride=1)
        self.root = normalized_convolution(2 * out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        left = self.left(x)
        return self.root(torch.cat([left, self.right(left)], dim=1))


def simple_dla(num_classes: int, in_channels: int, *, width: int) -> nn.Sequential:
    """Build SimpleDLA: images (B, in_channels, H, W) to logits (B, num_classes)."""
    return nn.Sequential(
        normalized_convolution(in_channels, width),
        normalized_convolution(width, width),
        normalized_convolution(width, 2 * width),
        Tree(2 * width, 4 * width, levels=1, stride=1),
        Tree(4 * width, 8 * width, levels=2, stride=2),
        Tree(8 * width, 16 * width, levels=2, stride=2),
        Tree(16 * width, 32 * width, levels=1, stride=2),
        classifier(32 * width, num_classes),
    )
