"""What columns and numbers are called where people read them: in figures, tables and pages."""

import pandas as pd

# Fractions in tables, percent in print.
PERCENT = {
    "train_accuracy": "train accuracy (%)",
    "test_accuracy": "test accuracy (%)",
    "test_error": "test error (%)",
    "generalization_gap": "generalization gap (percentage points)",
}


def column_label(column: str) -> str:
    """A column as words: region_count_line is region count (line)."""
    if column in PERCENT:
        return PERCENT[column]
    for measure in ("region_count_", "region_entropy_"):
        if column.startswith(measure):
            return f"{column_label(measure[:-1])} ({column_label(column.removeprefix(measure))})"
    return column.replace("_", " ")


def column_unit(column: str) -> float:
    """What the values of a column are multiplied by in print."""
    return 100.0 if column in PERCENT else 1.0


def value_text(value) -> str:
    """A hyperparameter's value."""
    if isinstance(value, str) or pd.isna(value):
        return str(value)
    return f"{value:g}" if value == int(value) else f"{value:.4g}"


def interval(value: float, low: float, high: float, decimals: int = 2) -> str:
    """A statistic with its interval, a dash where it is undefined."""
    if pd.isna(value):
        return "–"
    ends = "" if pd.isna(low) else f" [{low:.{decimals}f}, {high:.{decimals}f}]"
    return f"{value:.{decimals}f}{ends}"


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    hours, rest = divmod(round(seconds), 3600)
    parts = {"h": hours, "min": rest // 60, "s": 0 if hours else rest % 60}
    return " ".join(f"{number} {unit}" for unit, number in parts.items() if number) or "0 s"
