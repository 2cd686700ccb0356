"""Conditional mutual information of the orders of a measure and a target (Jiang et al. 2020, arXiv 1912.02178)."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from regioncount.analysis.observations import (
    HYPERPARAMETERS,
    TARGETS,
    Floats,
    Integers,
    Observations,
    Statistics,
    combine,
    tabulate,
)


def conditional_mutual_information(
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str] = TARGETS,
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    keep_seeds: bool = False,
) -> pd.DataFrame:
    """Compute the minimum normalized mutual information of the orders of measure and target, given hyperparameters.

    For an ordered pair of observations of different configurations, let V_m = sign(measure_1 - measure_2),
    V_g = sign(target_1 - target_2), and U_S the values of the hyperparameters in a set S in both observations. The sign of a
    tie is 0, a third value. For a set S, the normalized information is

        I(V_m; V_g | U_S) / H(V_g | U_S),    0 = the measure adds nothing to S, 1 = it determines the target's order,

    with probabilities replaced by shares of pairs. The result is the minimum over all S that leave out at least one of the
    hyperparameters that vary (in the paper, |S| <= 2). Sets with H(V_g | U_S) = 0 are left out. The direction of the
    association does not matter.

    Shares of few pairs overestimate information, and more so for large S: with three values of each of three hyperparameters
    and two of them in S, each value of U_S has nine pairs.

    Args:
        runs: One row per run; see `correlations`.
        measures: Columns of `runs`.
        targets: Columns of `runs`, or generalization_gap and test_error, which are derived from the accuracies.
        group_by: The hyperparameters that make a configuration.
        keep_seeds: Whether every run is an observation; by default, the seeds of a configuration are averaged.

    Returns:
        One row per measure and target: measure, target, runs, configurations, conditional_mutual_information (the minimum),
        given (the smallest and first S that attains it; empty for the empty set), mutual_information (for the empty set),
        and note: why they are undefined (NaN), else empty.

    Raises:
        InputError: If a column is missing or not numeric, or accuracies are in percent.
    """
    columns = ["conditional_mutual_information", "given", "mutual_information"]
    return tabulate(_information, columns, runs, measures, targets, group_by, keep_seeds)


def _information(observed: Observations, measure: str, target: str) -> Statistics:
    first, second = np.nonzero(np.not_equal.outer(observed.configuration, observed.configuration))
    # Encode each sign as 0, 1 or 2, and both signs in one number.
    signs = [1 + np.sign(values[first] - values[second]).astype(int) for values in observed.pair(measure, target)]
    orders = 3 * signs[0] + signs[1]
    levels = observed.levels()
    varying = [position for position in range(levels.shape[1]) if len(np.unique(levels[:, position])) > 1]
    normalized: dict[tuple[int, ...], float] = {}
    for size in range(len(varying)):
        for subset in combinations(varying, size):
            settings = combine(levels[:, subset])
            number = settings.max() + 1
            shares = _count(settings[first] * number + settings[second], number**2, orders) / len(first)
            entropy = _entropy(shares.sum(axis=1)) - _entropy(shares.sum(axis=(1, 2)))
            if entropy > 1e-12:
                information = _entropy(shares.sum(axis=2)) + _entropy(shares.sum(axis=1))
                information -= _entropy(shares) + _entropy(shares.sum(axis=(1, 2)))
                # Round, so that sets tie if their values differ only by floating point error.
                normalized[subset] = float(np.clip(np.round(information / entropy, 12), 0, 1))
    best = min(normalized, key=lambda subset: normalized[subset])
    return {
        "conditional_mutual_information": normalized[best],
        "given": ", ".join(observed.settings.columns[list(best)]),
        "mutual_information": normalized[()],
    }


def _count(cells: Integers, number: int, orders: Integers) -> Integers:
    """Return the number of pairs in each cell with each pair of signs, (cells, 3, 3); all cells are below `number`."""
    if number > len(cells):  # most cells are empty
        present, cells = np.unique(cells, return_inverse=True)
        number = len(present)
    return np.bincount(9 * cells + orders, minlength=9 * number).reshape(-1, 3, 3)


def _entropy(shares: Floats) -> float:
    """Return the entropy of a distribution, in nats."""
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
