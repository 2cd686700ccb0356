"""Runs on disk: what identifies a run, how it is stored, what is measured of it, and how it is trained."""

from importlib import import_module


def __getattr__(name: str):
    # Reading a record must not import torch: `load` is looked up when it is first used.
    if name == "load":
        return import_module("regioncount.runs.store").load
    raise AttributeError(f"module 'regioncount.runs' has no attribute {name!r}")
