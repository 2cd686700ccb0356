"""The classes of ImageNet (ILSVRC 2012)."""

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[str, ...]:
    """Return the WordNet ids of the 1,000 classes in sorted order, the order of the outputs of pretrained models."""
    return tuple(Path(__file__).with_name("imagenet_wordnet_ids.txt").read_text(encoding="ascii").split())
