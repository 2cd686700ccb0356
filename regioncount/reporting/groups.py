"""Groups of comparable runs: those of one data set, network and measuring setting."""

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from regioncount.runs.plans import Plan

# Of a data set's or network's name in the name of a file.
MAX_NAME_LENGTH = 60


@dataclass(frozen=True, eq=False)
class Group:
    """The finished runs of one data set, network and measuring setting."""

    settings: dict[str, Any]
    """The data set, network and measuring setting, by column."""
    title: str
    """The settings in words."""
    short_title: str
    """The settings in which groups differ, in words."""
    file_suffix: str
    """The end of the names of the group's files."""
    rows: pd.DataFrame
    """The group's rows of the table of runs."""

    def select(self, table: pd.DataFrame, **further: Any) -> pd.DataFrame:
        """Return a table's rows that belong to this group.

        Args:
            table: A table with the columns of `settings`, or an empty one.
            **further: Values that further columns must have.
        """
        wanted = self.settings | further
        return table[(table[list(wanted)] == list(wanted.values())).all(axis=1)] if len(table) else table

    def select_counts(self, counts: pd.DataFrame, plan: Plan, subspace: str) -> pd.DataFrame:
        """Return the group's region counts in one kind of subspace, one row per run and epoch.

        Args:
            counts: The sweep's counts through training.
            plan: The sweep's plan.
            subspace: The subspace's name.
        """
        wanted = {column: self.settings[column] for column in plan.measuring_columns} | {"subspace": subspace}
        chosen = (counts[list(wanted)] == list(wanted.values())).all(axis=1)
        return counts[chosen & counts["identity"].isin(self.rows["identity"])]


def group_columns(plan: Plan) -> list[str]:
    """Return the columns whose values identify a group."""
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
        suffix = "".join(f"_{_file_name_part(settings[column])}" for column in distinguishing)
        if suffix in suffixes:
            suffix += f"_{len(suffixes)}"
        suffixes.add(suffix)
        short_title = ", ".join(words[column] for column in distinguishing)
        result.append(Group(settings, ", ".join(words.values()), short_title, suffix, rows))
    return result


def _file_name_part(value: Any) -> str:
    """Return a value in the letters that are safe in the name of a file."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", str(value)).strip("-.")[:MAX_NAME_LENGTH]
