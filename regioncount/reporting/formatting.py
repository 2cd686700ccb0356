"""Format values for figures, tables and pages."""

from typing import Any

import pandas as pd

DASH = "–"


def value_text(value: Any) -> str:
    """Return a hyperparameter's value as text."""
    if isinstance(value, str) or pd.isna(value):
        return str(value)
    return f"{value:g}" if value == int(value) else f"{value:.4g}"


def number_text(value: float) -> str:
    """Return a number as text for a cell of a heat map."""
    return f"{value:.2f}" if 0.1 <= abs(value) < 100 else f"{value:.4g}"


def interval(value: float, low: float, high: float, decimals: int = 2) -> str:
    """Return a statistic with its interval; a dash if it is undefined."""
    if pd.isna(value):
        return DASH
    ends = "" if pd.isna(low) else f" [{low:.{decimals}f}, {high:.{decimals}f}]"
    return f"{value:.{decimals}f}{ends}"


def mean_and_error(mean: float, error: float) -> str:
    """Return a mean with its standard error: a dash if there is no mean, the mean alone if there is no standard error."""
    if pd.isna(mean):
        return DASH
    return f"{mean:.3f}" + ("" if pd.isna(error) else f" ± {error:.3f}")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 run", "2 runs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a duration in hours and minutes, or in minutes and seconds if it is below an hour."""
    hours, rest = divmod(round(seconds), 3600)
    parts = {"h": hours, "min": rest // 60, "s": 0 if hours else rest % 60}
    return " ".join(f"{number} {unit}" for unit, number in parts.items() if number) or "0 s"
