"""Store runs on disk, train them, and measure them."""

from typing import TYPE_CHECKING

from regioncount.lazy import lazy_names

if TYPE_CHECKING:
    from regioncount.runs.models import load_model
    from regioncount.runs.record import load

__all__ = ["load", "load_model"]

# Imported at first use, so that identities alone do not import pandas.
__getattr__, __dir__ = lazy_names(__name__, {"load": "record", "load_model": "models"})
