"""The counts of results/published/cifar10_full_width beside those of the authors' runs.

python benchmarks/full_width.py FILE

FILE contains the authors' published runs, tidied to one row per run: experiment, network, learning_rate, batch_size,
test_accuracy (a fraction) and regions_200, the region count at epoch 200. Their counts are
averages over weight decays and seeds. It prints a row for each configuration. For each network and subspace, it prints
Pearson's r of our counts and theirs, the relative differences of the counts and, without the learning rate 0.001, the same
r and that of our count and gap.
"""

import argparse
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parents[1] / "results/published/cifar10_full_width"
CONFIGURATION = ["learning_rate", "batch_size"]
SMALLEST_RATE = 0.001
# Our subspaces, and the authors' experiments beside which they are printed.
SUBSPACES = {"line": "train_pairs", "plane": "simplex_2d", "coarse_plane": "simplex_2d", "simplex_3": "simplex_3d"}


def our_configurations() -> pd.DataFrame:
    """Return our averages by configuration, with the counts in coarse planes where there are any."""
    ours = pd.read_csv(RESULTS / "configurations.csv")
    coarse = pd.read_csv(RESULTS / "configurations_with_coarse_planes.csv")
    keys = ["model", *CONFIGURATION]
    return ours.merge(coarse[[*keys, "region_count_coarse_plane"]], on=keys, how="left")


def print_network(network: str, ours: pd.DataFrame, authors: pd.DataFrame) -> None:
    """Print the configurations of a network, and how our counts compare with the authors'.

    Args:
        network: The network's name.
        ours: Our averages by configuration.
        authors: The authors' runs of this network.
    """
    ours = ours.set_index(CONFIGURATION).sort_index(ascending=[False, True])
    table = ours[["epochs_trained", "train_accuracy", "test_accuracy"]].copy()
    comparisons = []
    for subspace, experiment in SUBSPACES.items():
        counts = ours[f"region_count_{subspace}"]
        if counts.isna().any():
            continue
        theirs = authors[authors["experiment"] == experiment].groupby(CONFIGURATION)[["regions_200", "test_accuracy"]].mean()
        theirs = theirs.reindex(ours.index)
        if subspace == "line":
            table["theirs: test_accuracy"] = theirs["test_accuracy"]
        table[subspace], table[f"theirs: {experiment}"] = counts, theirs["regions_200"]
        difference = counts / theirs["regions_200"] - 1
        larger = ours.index.get_level_values("learning_rate") > SMALLEST_RATE
        comparisons.append(
            {
                "subspace": subspace,
                "r": counts.corr(theirs["regions_200"]),
                "mean difference": difference.mean(),
                "mean absolute difference": difference.abs().mean(),
                "lowest": difference.min(),
                "highest": difference.max(),
                "r, larger rates": counts[larger].corr(theirs["regions_200"][larger]),
                "r of count and gap, larger rates": counts[larger].corr(ours["generalization_gap"][larger]),
            }
        )
    print(f"\n{network}\n\n{table.round(3).to_string()}\n\n{pd.DataFrame(comparisons).round(3).to_string(index=False)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, help="the authors' published runs (CSV)")
    authors = pd.read_csv(parser.parse_args().file)
    for network, ours in our_configurations().groupby("model", sort=False):
        print_network(str(network), ours, authors[authors["network"] == network])


if __name__ == "__main__":
    main()
