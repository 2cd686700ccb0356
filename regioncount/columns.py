"""Result columns: the quantity that a column holds, and its label in tables and figures."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from regioncount.errors import InputError

# Statistics that are measured once per kind of subspace; their keys contain the subspace's name.
SUBSPACE_STATISTICS = ("region_count", "region_entropy", "region_share_one", "region_share_proved", "affine_pieces")

# Suffixes of a statistic: its standard error, the reason why it is undefined, or a bound in place of a count.
PARTS = ("standard_error", "error", "at_least", "at_most")

# Columns of the tables of sweeps: what identifies a run, how its training ended, and what other tables add.
RUN_COLUMNS = ("identity", "status", "dataset", "model", "learning_rate", "batch_size", "weight_decay", "seed")
OUTCOME_COLUMNS = (
    *("num_classes", "error", "epochs_trained", "precision", "seconds", "directory", "fitted", "degenerate"),
    *("runs", "epoch", "mean", "subspace", "entropy", "standard_error", "measure", "target", "selection"),
    *("train_accuracy", "test_accuracy", "train_loss", "test_loss", "generalization_gap", "test_error"),
)
# What trackers call the columns of a run's history.
HISTORY_COLUMNS = (
    *("scheduled_learning_rate", "scheduled_batch_size", "running_loss", "running_accuracy", "epoch_seconds", "stop_loss"),
)

# Stored as fractions, printed in percent.
PERCENT = {
    "train_accuracy": "train accuracy (%)",
    "test_accuracy": "test accuracy (%)",
    "test_error": "test error (%)",
    "generalization_gap": "generalization gap (percentage points)",
}


@dataclass(frozen=True)
class Column:
    """One column of results, such as the standard error of the region count on lines."""

    statistic: str
    """The quantity: "region_count", "test_accuracy" or the name of a measure."""
    subspace: str | None = None
    """The name of the subspaces in which it was measured, if it is one of `SUBSPACE_STATISTICS`."""
    part: str | None = None
    """One of `PARTS`; None for the value itself."""
    declared_label: str | None = field(default=None, compare=False)
    """The label that a plugin declares for its measure."""
    unit: str | None = field(default=None, compare=False)
    """The unit that a plugin declares for its measure."""

    @property
    def key(self) -> str:
        """The column's name in tables: "region_count_line_standard_error"."""
        return "_".join(filter(None, (self.statistic, self.subspace, self.part)))

    @property
    def label(self) -> str:
        """The column in words, with its unit: "region count (line)"."""
        if self.declared_label is not None or self.unit is not None:
            words = self.declared_label or self.key.replace("_", " ")
            return f"{words} ({self.unit})" if self.unit else words
        if self.part is None and self.key in PERCENT:
            return PERCENT[self.key]
        words = self.statistic.replace("_", " ")
        subspace = f" ({self.subspace.replace('_', ' ')})" if self.subspace else ""
        return f"{words}{subspace}" + (f" {self.part.replace('_', ' ')}" if self.part else "")

    @property
    def factor(self) -> float:
        """The factor by which printed values are multiplied: 100 for fractions that are printed in percent."""
        return 100.0 if self.part is None and self.key in PERCENT else 1.0

    @property
    def name(self) -> str:
        """The column in words, without its unit: "generalization gap"."""
        return self.declared_label or self.label.split(" (")[0]

    @property
    def is_region_count(self) -> bool:
        """Whether the values are mean region counts."""
        return self.statistic == "region_count" and self.subspace is not None and self.part is None

    @property
    def is_region_statistic(self) -> bool:
        """Whether the values are mean region counts or mean region entropies."""
        return self.statistic in ("region_count", "region_entropy") and self.subspace is not None and self.part is None

    def with_part(self, part: str | None) -> "Column":
        """Return the column of another part of the same statistic."""
        return replace(self, part=part)

    @classmethod
    def parse_stored(cls, key: str, subspace: str) -> "Column":
        """Return the column of a value in measures.json, where the values of each subspace are stored without its name.

        Args:
            key: The key of the stored value, such as "region_count_standard_error" or "error".
            subspace: The subspace's name.
        """
        for statistic in SUBSPACE_STATISTICS:
            if key.startswith(statistic):
                return cls(statistic, subspace, key.removeprefix(statistic).lstrip("_") or None)
        return cls("region_count", subspace, key)

    @classmethod
    def parse(cls, key: str, subspaces: Iterable[str]) -> "Column":
        """Return the column of a key in a table.

        Args:
            key: The name of the column in the table.
            subspaces: Names of the subspaces in which regions were counted.
        """
        for subspace in sorted(subspaces, key=len, reverse=True):
            for statistic in SUBSPACE_STATISTICS:
                if key == f"{statistic}_{subspace}":
                    return cls(statistic, subspace)
                for part in PARTS:
                    if key == f"{statistic}_{subspace}_{part}":
                        return cls(statistic, subspace, part)
        if key not in PERCENT:
            for part in PARTS:
                if key.endswith(f"_{part}"):
                    return cls(key.removesuffix(f"_{part}"), None, part)
        return cls(key)


def is_reserved(key: str) -> bool:
    """Return whether a column name is reserved: for a run's identity or outcome, or for the statistics of a subspace."""
    statistics = tuple(f"{statistic}_" for statistic in SUBSPACE_STATISTICS)
    names = (*RUN_COLUMNS, *OUTCOME_COLUMNS, *HISTORY_COLUMNS, *SUBSPACE_STATISTICS)
    return key in names or key.startswith(statistics)


def check_measure_name(name: str) -> None:
    """Check that the name of a measure, which is also its column in tables, is not reserved.

    Raises:
        InputError: The name or its ending is reserved.
    """
    if is_reserved(name):
        raise InputError(f"measures={name}: tables have a column of this name; choose another name")
    if suffix := next((part for part in PARTS if name.endswith(f"_{part}")), None):
        raise InputError(f"measures={name}: the ending _{suffix} is reserved in tables; choose another name")
