"""Store runs on disk, train them, and measure them."""

from importlib import import_module


def __getattr__(name: str):
    if name == "load":  # on first use, so that identities alone do not import pandas
        return import_module("regioncount.runs.record").load
    raise AttributeError(f"module 'regioncount.runs' has no attribute {name!r}")
