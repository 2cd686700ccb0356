"""Correlations of region count and gap in the authors' runs of ResNet-18 that trained for 21 of the 200 epochs.

python benchmarks/undertrained.py DIR

DIR contains the authors' published runs, tidied to one row per run:

- runs.csv: experiment, network, learning_rate, batch_size, weight_decay, train_accuracy, test_accuracy (fractions), and the
  counts regions_000, regions_010, ... at the recorded epochs;
- resnet18_other_measures.csv: hyperparameters and accuracies of the 27 runs of `other_measures`, which have 21 epochs.

A run of another experiment is known to have 21 epochs if its accuracies are exactly those of such a run. Others may, too.
"""

import argparse
from pathlib import Path

import pandas as pd

from regioncount.analysis import correlations

OPTIONS = ["learning_rate", "batch_size", "weight_decay"]
ACCURACIES = ["train_accuracy", "test_accuracy"]


def comparisons(runs: pd.DataFrame, short: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the runs of each comparison, with the column count, by its description.

    Args:
        runs: The published runs of ResNet-18.
        short: Runs that are known to have 21 epochs.
    """
    epochs = [name for name in runs if name.startswith("regions_")]
    runs = runs.assign(count=runs[epochs].ffill(axis=1).iloc[:, -1])
    main = runs[runs["experiment"] == "cifar10"]
    # The first 20 epochs of a schedule of 200 are the same in both.
    counts = main.groupby(OPTIONS, as_index=False)["regions_020"].mean().rename(columns={"regions_020": "count"})
    stopped = short[[*OPTIONS, *ACCURACIES]].merge(counts, on=OPTIONS)
    found = {
        "cifar10, 200 epochs": main,
        "the same configurations: count after 20 epochs, gap of other_measures after 21": stopped,
        "short_segment, 21 epochs": runs[runs["experiment"] == "short_segment"],
    }
    known = set(short[ACCURACIES].itertuples(index=False, name=None))
    for experiment in ("weight_decay", "early_stop"):
        rows = runs[runs["experiment"] == experiment]
        is_short = pd.Series([pair in known for pair in rows[ACCURACIES].itertuples(index=False, name=None)], rows.index)
        found |= {experiment: rows, f"{experiment}, known to have 21 epochs": rows[is_short]}
        found[f"{experiment}, others"] = rows[~is_short]
    return found


def main() -> None:
    """Print a Markdown table with one row per comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    runs = pd.read_csv(directory / "runs.csv").query("network == 'resnet18'").round(dict.fromkeys(ACCURACIES, 6))
    short = pd.read_csv(directory / "resnet18_other_measures.csv").round(dict.fromkeys(ACCURACIES, 6))
    print("| runs | configurations | fitted | Kendall's tau | Pearson's r | r, fitted | train accuracy % |")
    print("|---|---|---|---|---|---|---|")
    for description, rows in comparisons(runs, short).items():
        row = correlations(rows, ["count"], ["generalization_gap"], OPTIONS).iloc[0]
        texts = []
        for name, suffix in (("kendall", ""), ("pearson", ""), ("pearson", "_fitted")):
            low, high = row[f"{name}_low{suffix}"], row[f"{name}_high{suffix}"]
            value = f"{row[f'{name}{suffix}']:.2f}"
            texts.append(value if pd.isna(low) else f"{value} [{low:.2f}, {high:.2f}]")
        fitted = f"{row['configurations_fitted']:.0f}"
        accuracies = rows.groupby(OPTIONS)["train_accuracy"].mean() * 100
        span = f"{accuracies.min():.1f}–{accuracies.max():.1f}"
        print(f"| {description} | {row['configurations']} | {fitted} | {' | '.join(texts)} | {span} |")


if __name__ == "__main__":
    main()
