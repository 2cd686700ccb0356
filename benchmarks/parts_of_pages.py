"""Correlations over parts of the configurations of a published page, which the README of small-scale results quotes.

python benchmarks/parts_of_pages.py

The sweeps print correlations over all configurations and over those that fit; these are other parts.
"""

from pathlib import Path

import pandas as pd

PUBLISHED = Path(__file__).parents[1] / "results/published"
COUNT, GAP, ACCURACY = "region_count_line", "generalization_gap", "train_accuracy"


def configurations(page: str, options: list[str]) -> pd.DataFrame:
    """Return the averages over seeds of a page at small scale, one row for each configuration."""
    runs = pd.read_csv(PUBLISHED / "small" / f"{page}.csv")
    return runs.groupby(options)[[ACCURACY, "test_accuracy", GAP, COUNT]].mean().reset_index()


def show(title: str, rows: pd.DataFrame, column: str = COUNT) -> None:
    """Print Pearson's r and Kendall's tau of a column and the gap."""
    pearson, kendall = (rows[column].corr(rows[GAP], method=method) for method in ("pearson", "kendall"))
    print(f"{title}: r {pearson:.2f}, tau {kendall:.2f} of {column} and the gap, {len(rows)} configurations")


def main() -> None:
    trees = configurations("decision_tree", ["max_depth", "criterion", "splitter"])
    show("decision trees that fit", trees[trees[ACCURACY] >= 0.99])
    machines = configurations("support_vector_machine", ["kernel", "C"])
    machines = machines.drop_duplicates([ACCURACY, "test_accuracy", COUNT])  # the linear ones are the same machine
    show("different support vector machines", machines)
    show("those that fit", machines[machines[ACCURACY] >= 0.99])
    regressions = configurations("logistic_regression", ["C"])
    show("logistic regression with C above 0.1", regressions[regressions["C"] > 0.1])
    stopped = configurations("early_stop", ["learning_rate", "batch_size"])
    show("networks that reached 95 % train accuracy", stopped[stopped[ACCURACY] >= 0.95], ACCURACY)
    short = pd.read_csv(PUBLISHED / "cifar10_epochs/epochs_21_seed_0/configurations.csv")
    show("networks after 21 epochs, one seed", short, ACCURACY)


if __name__ == "__main__":
    main()
