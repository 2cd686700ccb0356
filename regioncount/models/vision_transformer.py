"""A vision transformer (Dosovitskiy et al. 2021), with normalization before each layer and a class token."""

import torch
from torch import nn

from regioncount.errors import InputError


class SelfAttention(nn.Module):
    """softmax(q k' / sqrt(d)) v in each head, d the width of a head, then a linear layer over all heads' outputs.

    Written out: torch's fused attention has no forward derivatives, which several measures take.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens):
        # (B, tokens, 3 width) as three of (B, heads, tokens, d)
        parts = self.query_key_value(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        weights = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(dim=3)
        return self.output((weights @ value).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Attention among tokens, then a multilayer perceptron on each; both are normalized before and added to what came in."""

    def __init__(self, width: int, heads: int, mlp_width: int, dropout: float):
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), SelfAttention(width, heads), nn.Dropout(dropout))
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, mlp_width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_width, width),
            nn.Dropout(dropout),
        )

    def forward(self, tokens):
        tokens = tokens + self.attention(tokens)
        return tokens + self.perceptron(tokens)


class VisionTransformer(nn.Module):
    """Patches and a class token, with learned positions, through encoder layers; logits from the class token."""

    def __init__(self, patches: int, embedding: nn.Conv2d, layers: list[nn.Module], num_classes: int, dropout: float):
        super().__init__()
        width = embedding.out_channels
        self.embedding = embedding
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, patches + 1, width))  # as their code initializes them
        self.encoder = nn.Sequential(nn.Dropout(dropout), *layers)
        self.classifier = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes))

    def forward(self, x):
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
) -> VisionTransformer:
    """`depth` encoder layers on tokens of `width` numbers, one a patch of patch_size x patch_size pixels.

    mlp_width: hidden units of the perceptron in each layer. dropout: after the embedding and after each linear layer but
    that of queries, keys and values, as in the paper. Raises InputError where patches do not fill the image, or heads do
    not share the width evenly.
    """
    height, image_width = image_size
    if height % patch_size or image_width % patch_size:
        raise InputError(f"patch_size={patch_size} does not divide images of {height} x {image_width} pixels")
    if width % heads:
        raise InputError(f"heads={heads} does not divide width={width}")
    patches = (height // patch_size) * (image_width // patch_size)
    embedding = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)
    layers: list[nn.Module] = [EncoderLayer(width, heads, mlp_width, dropout) for _ in range(depth)]
    return VisionTransformer(patches, embedding, layers, num_classes, dropout)
