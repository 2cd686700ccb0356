"""Check the structure of run.json and measures.json, which are untrusted."""

import math
import re
from typing import Any

import numpy as np

from regioncount.runs import files

IDENTITY = "[0-9a-f]{16}"
RUN_NAME = r"(?!\.)[\w.-]{1,200}"  # one component of a path
STATUSES = ("running", "finished", "diverged")
MAX_EPOCHS = 10**6

RECORD_TYPES = {
    "identity": str,
    "name": str,
    "attempt": str,
    "data": str,
    "config": dict,
    "status": str,
    "summary": dict,
    "environment": dict,
    "checksums": dict,
    "tracked": list,
}


def invalid_key(record: dict[str, Any]) -> str | None:
    """Return the first key of a run's record whose value is missing or invalid, or None if all are valid."""
    for key, expected in RECORD_TYPES.items():
        if type(record.get(key)) is not expected:
            return key
    if not isinstance(record.get("earlier_environments", []), list):
        return "earlier_environments"
    valid = {
        "identity": re.fullmatch(IDENTITY, record["identity"]),
        "name": re.fullmatch(RUN_NAME, record["name"]),
        "status": record["status"] in STATUSES,
        "summary": _is_summary(record["summary"], record["status"] == "running"),
        "environment": _is_environment(record["environment"]),
        "earlier_environments": all(map(_is_environment, record.get("earlier_environments", []))),
        "checksums": all(isinstance(value, str) for value in record["checksums"].values()),
        "tracked": all(isinstance(value, str) for value in record["tracked"]),
    }
    return next((key for key, is_valid in valid.items() if not is_valid), None)


def max_array_bytes(entry: dict[str, Any]) -> int:
    """Return the maximum size in bytes of an array of a measurement, from what the entry says was measured."""
    subspace = entry["settings"].get("subspace")
    if isinstance(subspace, dict):  # a value per subspace, or per interval of a subspace
        sizes = [subspace.get("number"), entry["how"].get("evaluations")]
        size = max((size for size in sizes if type(size) is int), default=0)
    else:
        shape = _planes_shape(entry)
        size = math.prod(shape) if shape else files.ARRAY_LIMIT
    return min(8 * size, files.ARRAY_LIMIT)


def has_plane_labels(entry: dict[str, Any], labels: np.ndarray | None) -> bool:
    """Return whether a measurement has its labels, integers (planes, n, n), if it is one of seed agreement."""
    if entry["settings"].get("measure") != "seed_agreement":
        return True
    return labels is not None and labels.shape == _planes_shape(entry) and labels.dtype.kind in "iu"


def _planes_shape(entry: dict[str, Any]) -> tuple[int, int, int] | None:
    """Return the shape of the labels that seed agreement compares; None for another measurement."""
    planes, resolution = (entry["settings"].get(key) for key in ("planes", "resolution"))
    return (planes, resolution, resolution) if type(planes) is int and type(resolution) is int else None


def is_measurement(entry: Any) -> bool:
    """Return whether a value is a valid entry of measures.json."""
    parts = ("settings", "values", "how", "arrays")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(part), dict) for part in parts):
        return False
    numbers = all(value is None or _is_number(value) or _is_explanation(key) for key, value in entry["values"].items())
    plain = all(_is_plain(value) for part in ("values", "how", "arrays") for value in entry[part].values())
    return numbers and plain and type(entry.get("epoch")) is int and _is_number(entry["how"].get("seconds", 0))


def _is_summary(summary: dict[str, Any], running: bool) -> bool:
    default = 0 if running else None  # both numbers are written when training ends
    epochs, seconds = summary.get("epochs_trained", default), summary.get("seconds", default)
    return type(epochs) is int and 0 <= epochs <= MAX_EPOCHS and _is_number(seconds)


def _is_environment(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_plain, value.values()))


def _is_explanation(key: str) -> bool:
    """Return whether a key holds the reason why a value is undefined. "test_error" holds a number."""
    return key.endswith("error") and key != "test_error" and not key.endswith("standard_error")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
