"""The columns of a sweep's results: which are region counts and measures, and their labels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from regioncount.columns import Column
from regioncount.reporting.frames import keys
from regioncount.runs.identity import measurement_key
from regioncount.runs.measurements import epochs_to_measure, measurement_settings
from regioncount.runs.plans import Plan, PlannedRun
from regioncount.runs.record import Run


@dataclass(frozen=True)
class ResultColumns:
    """The columns that the configurations and measurements of a sweep define."""

    subspaces: tuple[str, ...]
    """The names of the subspaces, in the order of the configurations."""
    measures: tuple[str, ...]
    """The keys of the columns of measures, in the order of the configurations."""
    descriptions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Labels and units that were stored with measurements, by key."""

    def __getitem__(self, key: str) -> Column:
        """Return the column of a key in a table."""
        column = Column.parse(key, self.subspaces)
        description = self.descriptions.get(key, {})
        return Column(column.statistic, column.subspace, column.part, description.get("label"), description.get("unit"))

    def label(self, key: str) -> str:
        """Return the label of a column, with its unit."""
        return self[key].label

    def region_counts(self, table: pd.DataFrame) -> list[Column]:
        """Return the columns of a table that are mean region counts."""
        return [column for column in map(self.__getitem__, keys(table)) if column.is_region_count]

    def measures_of(self, table: pd.DataFrame) -> list[str]:
        """Return the keys of a table's measures: region counts and entropies, the train loss and generalization measures.

        Accuracies and the generalization gap are excluded, because measures are compared with them. The train loss is
        excluded if there are no generalization measures.
        """
        regions = [column.key for column in map(self.__getitem__, keys(table)) if column.is_region_statistic]
        measures = self.generalization_measures(table)
        return [*regions, *(["train_loss", *measures] if measures else [])]

    def generalization_measures(self, table: pd.DataFrame) -> list[str]:
        """Return the keys of a table's generalization measures."""
        return [key for key in self.measures if key in table]

    def for_heat_maps(self, rows: pd.DataFrame) -> list[Column]:
        """Return the measured columns for heat maps: region counts, generalization gap and test accuracy."""
        shown = [*self.region_counts(rows), self["generalization_gap"], self["test_accuracy"]]
        return [column for column in shown if column.key in rows and rows[column.key].notna().any()]


def result_columns(plan: Plan, runs: Iterable[tuple[PlannedRun, Run]]) -> ResultColumns:
    """Return the columns that a plan's configurations define.

    Args:
        plan: The sweep's plan.
        runs: The plan's finished runs.
    """
    configs = [planned.config for planned in plan.runs]
    subspaces = dict.fromkeys(name for config in configs for name in config.regions.subspaces)
    keys = {name: [name] for config in configs for name in config.measures}
    descriptions: dict[str, dict[str, str]] = {}
    for planned, run in runs:
        for name, stored in _stored_descriptions(planned, run):
            descriptions |= {key: description for key, description in stored.items() if key not in descriptions}
            keys[name] += [key for key in stored if key not in keys[name]]
    measures = dict.fromkeys(key for name in keys for key in keys[name])
    return ResultColumns(tuple(subspaces), tuple(measures), descriptions)


def _stored_descriptions(planned: PlannedRun, run: Run) -> Iterable[tuple[str, dict[str, dict[str, str]]]]:
    """Yield each measure of a run with the labels and units that were stored with its values."""
    settings = measurement_settings(planned.config, planned.dataset)
    epoch = epochs_to_measure(planned.config, run.epochs_trained)[-1]
    for name in planned.config.measures:
        entry = run.measures.get(measurement_key(settings[name], epoch), {})
        stored = entry.get("columns")
        if isinstance(stored, dict):
            yield name, {key: _label_and_unit(stored[key]) for key in entry["values"] if key in stored}


def _label_and_unit(description: Any) -> dict[str, str]:
    """Return the label and unit of a description. Records are untrusted: values of other types are ignored."""
    if not isinstance(description, dict):
        return {}
    return {part: description[part] for part in ("label", "unit") if isinstance(description.get(part), str)}
