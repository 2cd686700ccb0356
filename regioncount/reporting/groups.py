"""Groups of comparable runs: those of one data set, network and measuring setting."""

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from regioncount.runs.plans import Plan

MAX_NAME_LENGTH = 60  # of a data set or network in a file name


@dataclass(frozen=True, eq=False)
class Group:
    """The finished runs of one data set, network and measuring setting."""

    settings: dict[str, Any]
    """The data set, network and measuring setting, by column."""
    title: str
    """The settings as text."""
    short_title: str
    """The settings that differ between groups, as text."""
    file_suffix: str
    """The suffix of the group's file names."""
    rows: pd.DataFrame
    """The group's rows of the table of runs."""

    def select(self, table: pd.DataFrame, **conditions: Any) -> pd.DataFrame:
        """Return a table's rows that belong to this group.

        Args:
            table: A table with the columns of `settings`, or an empty one.
            **conditions: Values that other columns must have.
        """
        conditions = self.settings | conditions
        return table[(table[list(conditions)] == list(conditions.values())).all(axis=1)] if len(table) else table

    def select_snapshots(self, snapshots: pd.DataFrame, plan: Plan) -> pd.DataFrame:
        """Return the group's measured values through training, one row per run and epoch.

        Args:
            snapshots: The sweep's table of them; it may be empty.
            plan: The sweep's plan.
        """
        conditions = {column: self.settings[column] for column in plan.measuring_columns}
        selected = self.select(snapshots, **conditions) if len(snapshots) else snapshots
        return selected[selected["identity"].isin(self.rows["identity"])] if len(selected) else selected


def group_columns(plan: Plan) -> list[str]:
    """Return the columns that identify a group."""
    return ["dataset", "model", *plan.measuring_columns]


def find_groups(table: pd.DataFrame, plan: Plan) -> list[Group]:
    """Return the groups of finished runs, in the order of the grid.

    Args:
        table: The sweep's table of runs.
        plan: The sweep's plan.
    """
    columns = group_columns(plan)
    finished = table[table["status"] == "finished"].groupby(columns, sort=False)
    groups = [(dict(zip(columns, values, strict=True)), rows) for values, rows in finished]
    distinguishing = [column for column in columns if len({settings[column] for settings, _ in groups}) > 1]
    suffixes: set[str] = set()
    result = []
    for settings, rows in groups:
        words = {c: str(value) if c in ("dataset", "model") else f"{c} {value}" for c, value in settings.items()}
        suffix = "".join(f"_{file_name_part(settings[column])}" for column in distinguishing)
        if suffix in suffixes:
            suffix += f"_{len(suffixes)}"
        suffixes.add(suffix)
        short_title = ", ".join(words[column] for column in distinguishing)
        result.append(Group(settings, ", ".join(words.values()), short_title, suffix, rows))
    return result


def file_name_part(value: Any) -> str:
    """Return a value as text, with unsafe characters for a file name replaced by dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", str(value)).strip("-.")[:MAX_NAME_LENGTH]
