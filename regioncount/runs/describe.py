"""Format the measurements of a run as text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from regioncount.columns import Column
from regioncount.runs.measurements import measured_values
from regioncount.runs.record import Run

if TYPE_CHECKING:
    from regioncount.config import MeasuringConfig, RunConfig


def describe(run: Run, config: "RunConfig | MeasuringConfig", dataset, epochs: Sequence[int]) -> str:
    """Return the measurements as text: a row per quantity, a column per epoch, and the reasons for undefined values.

    Args:
        run: The measured run.
        config: The configuration that selects the measurements.
        dataset: The run's data set, or any object with its `name` and `fingerprints`.
        epochs: The epochs to show.

    Returns:
        The table and the reasons, below a line with the run's directory, status, data set and model.
    """
    columns: dict[str, dict[str, str]] = {}
    reasons: dict[str, None] = {}
    for epoch in epochs:
        row = measured_values(run, config, dataset, epoch)
        cells = _performance(row)
        for subspace in config.regions.subspaces:
            cells |= _region_counts(row, subspace)
        for name in config.measures:
            for column in _columns_of(name, row):
                reason = row.get(Column(column, part="error").key)
                standard_error = row.get(Column(column, part="standard_error").key)
                value = f"{row[column]:.5g}" + ("" if standard_error is None else f" ± {standard_error:.2g}")
                cells[column] = "undefined" if reason else value
                if reason:
                    reasons[f"{column}: {reason}"] = None
        columns[f"epoch {epoch}"] = cells
    lines = [f"{run.directory}: {run.status}, {dataset.name}, {run.config['model']['name']}"]
    lines += [pd.DataFrame(columns).to_string()] if any(columns.values()) else []
    return "\n".join([*lines, *reasons])


def _columns_of(measure: str, row: dict[str, Any]) -> list[str]:
    """Return the columns of a measure that hold values. The names of several columns begin with the measure's."""
    columns = [key for key in row if key == measure or key.startswith(f"{measure}_")]
    return [key for key in columns if not isinstance(row[key], str) and Column.parse(key, ()).part != "standard_error"]


def _performance(row: dict[str, Any]) -> dict[str, str]:
    names = ("train_accuracy", "test_accuracy", "generalization_gap")
    cells = {f"{name} %": f"{100 * row[name]:.2f}" for name in names if name in row}
    for name in ("train_loss", "test_loss"):
        if name in row:
            cells[name] = "undefined" if Column(name, part="error").key in row else f"{row[name]:.4f}"
    return cells


def _region_counts(row: dict[str, Any], subspace: str) -> dict[str, str]:
    def value(statistic: str, part: str | None = None) -> Any:
        return row.get(Column(statistic, subspace, part).key)

    cells = {}
    if (proved := value("region_share_proved")) is not None:
        cells[f"proved {subspace} %"] = f"{100 * proved:.2f}"
    if (pieces := value("affine_pieces")) is not None:
        cells[f"affine pieces {subspace}"] = f"{pieces:.1f}"
    if (mean := value("region_count")) is None:
        bounds = {word: value("region_count", f"at_{word}") for word in ("least", "most")}
        text = ", ".join(f"at {word} {bound:.4g}" for word, bound in bounds.items() if bound is not None)
        cells[f"region_count {subspace}"] = text or value("region_count", "error") or "not measured"
        return cells
    cells[f"region_count {subspace}"] = f"{mean:.3f} ± {value('region_count', 'standard_error'):.3f}"
    cells[f"region_entropy {subspace}"] = f"{value('region_entropy'):.3f}"
    cells[f"in one region {subspace} %"] = f"{100 * value('region_share_one'):.1f}"
    return cells
