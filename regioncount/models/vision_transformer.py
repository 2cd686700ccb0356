"""The vision transformer (Dosovitskiy et al. 2021), with pre-normalization and a class token.

Its variant "vit_cifar" is the network of the paper's experiment, that of github.com/omihub777/ViT-CIFAR.
"""

import torch
from torch import Tensor, nn

from regioncount.errors import InputError


class SelfAttention(nn.Module):
    """Multi-head self-attention: softmax(q k' / sqrt(scaled_by)) v in each head, then a linear layer on all heads.

    Torch's fused attention is not used, because it does not support forward-mode derivatives, which several measures need.
    """

    def __init__(self, width: int, heads: int, scaled_by: int):
        super().__init__()
        self.heads = heads
        self.scale = scaled_by**0.5
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, width) to tokens (B, N, width)."""
        # (B, N, 3 * width) to (3, B, heads, N, width / heads)
        parts = self.query_key_value(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        weights = (query @ key.transpose(2, 3) / self.scale).softmax(dim=3)
        return self.output((weights @ value).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Residual self-attention, then a residual perceptron on each token, both after layer normalization."""

    def __init__(self, width: int, heads: int, mlp_width: int, dropout: float, vit_cifar: bool):
        super().__init__()
        attention = SelfAttention(width, heads, scaled_by=width if vit_cifar else width // heads)
        self.attention = nn.Sequential(nn.LayerNorm(width), attention, nn.Dropout(dropout))
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, mlp_width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_width, width),
            *([nn.GELU()] if vit_cifar else []),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, width) to tokens (B, N, width)."""
        tokens = tokens + self.attention(tokens)
        return tokens + self.perceptron(tokens)


class VisionTransformer(nn.Module):
    """An encoder of patch tokens and a class token with learned position embeddings; the class token gives the logits."""

    def __init__(
        self, patches: int, embedding: nn.Conv2d, layers: list[nn.Module], num_classes: int, dropout: float, vit_cifar: bool
    ):
        super().__init__()
        width = embedding.out_channels
        self.embedding = embedding
        self.class_token = nn.Parameter(torch.randn(1, 1, width) if vit_cifar else torch.zeros(1, 1, width))
        self.positions = nn.Parameter((1.0 if vit_cifar else 0.02) * torch.randn(1, patches + 1, width))
        self.encoder = nn.Sequential(*([] if vit_cifar else [nn.Dropout(dropout)]), *layers)
        self.classifier = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, num_classes)."""
        patches = self.embedding(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), patches], dim=1)
        return self.classifier(self.encoder(tokens + self.positions)[:, 0])


def vision_transformer(
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    *,
    patch_size: int,
    width: int,
    depth: int,
    heads: int,
    mlp_width: int,
    dropout: float,
    variant: str = "standard",
) -> VisionTransformer:
    """Build a vision transformer.

    The variant "vit_cifar" differs from the one of Dosovitskiy et al. 2021 in four things: attention divides q k' by the
    root of the width of a token instead of that of a head; a second GELU follows the second linear layer of each
    perceptron; class token and position embeddings are initially standard normal instead of zero and normal with a
    standard deviation of 0.02; and no dropout follows the embedding. Linear layers have torch's initial weights in both.

    Args:
        num_classes: The number of classes.
        in_channels: The channels of an image.
        image_size: Height and width of an image in pixels.
        patch_size: Height and width of a patch in pixels.
        width: The dimension of a token.
        depth: The number of encoder layers.
        heads: The number of attention heads in each layer.
        mlp_width: The hidden units of the perceptron in each layer.
        dropout: The dropout rate after the embedding and after each linear layer except the projection to queries, keys
            and values, as in the paper.
        variant: "standard" or "vit_cifar".

    Returns:
        A network from images (B, in_channels, *image_size) to logits (B, num_classes).

    Raises:
        InputError: `patch_size` does not divide the image size, or `heads` does not divide `width`.
    """
    height, image_width = image_size
    if height % patch_size or image_width % patch_size:
        raise InputError(f"patch_size={patch_size} does not divide images of {height} x {image_width} pixels")
    if width % heads:
        raise InputError(f"heads={heads} does not divide width={width}")
    vit_cifar = variant == "vit_cifar"
    patches = (height // patch_size) * (image_width // patch_size)
    embedding = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)
    layers: list[nn.Module] = [EncoderLayer(width, heads, mlp_width, dropout, vit_cifar) for _ in range(depth)]
    return VisionTransformer(patches, embedding, layers, num_classes, dropout, vit_cifar)
