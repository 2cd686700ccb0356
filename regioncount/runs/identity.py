"""Identify runs and measurements by hashes of the settings behind them.

Published runs and measurements are found by these hashes, so they must never change (tests/runs/test_identities.py).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

IDENTITY_FORMAT = 1  # increment it if the same configuration trains a different model from now on

# The parts of a configuration that, together with the data's content, the precision and the compilation of training,
# determine the trained model.
IDENTITY_PARTS = ("model", "optimizer", "schedule", "augmentation", "batch_size", "epochs", "stop", "seed")
# These too, where a configuration has them.
OPTIONAL_PARTS = ("ghost_batch_size", "pruning")

# A plugin enters an identity only if it supplies one of these.
PLUGIN_PARTS = ("model", "dataset", "optimizer", "schedule", "augmentation")


def run_identity(config: Mapping[str, Any], data: str, precision: str, compiled: bool, pretrained: str | None = None) -> str:
    """Return the identity of the run that a configuration trains.

    Args:
        config: The configuration as a mapping, as `config.as_mapping` returns it.
        data: The fingerprint of the training data.
        precision: The resolved training precision, "float32" or "bfloat16".
        compiled: Whether training steps are compiled.
        pretrained: The hash of the pretrained weights with which training begins; None if they are random.

    Returns:
        16 hexadecimal digits.
    """
    parts = {key: config[key] for key in IDENTITY_PARTS} | {key: config[key] for key in OPTIONAL_PARTS if key in config}
    parts |= {"data": data, "precision": precision} | ({"compiled": True} if compiled else {})
    parts |= {"pretrained": pretrained} if pretrained else {}
    sources = config.get("plugin_sources", {})
    supplied = {part: sources[part] for part in PLUGIN_PARTS if part in sources}
    return identity_of(parts | ({"plugins": supplied} if supplied else {}))


def identity_of(parts: Mapping[str, Any]) -> str:
    """Return a hash, 16 hexadecimal digits, of everything that determines a model. 1 and 1.0 count as equal."""
    return _digest({"format": IDENTITY_FORMAT, **parts})[:16]


def measurement_key(settings: Mapping[str, Any], epoch: int) -> str:
    """Return the key of a measurement in measures.json: a hash, 16 hexadecimal digits, of its settings and the epoch."""
    return _digest({"settings": settings, "epoch": epoch})[:16]


def _canonical(value: Any) -> Any:
    """Return a value whose JSON is the same for 1 and 1.0, and for tuples and lists."""
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digest(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_canonical(parts), sort_keys=True).encode()).hexdigest()
