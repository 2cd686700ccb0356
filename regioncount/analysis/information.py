"""Conditional mutual information of the orders of a measure and a target (Jiang et al. 2020, arXiv 1912.02178)."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import special

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

PERMUTATIONS = 199  # for the quantile of unrelated measures
MIN_PERMUTATIONS = 19
MAX_GIVEN = 2  # hyperparameters in S
COUNTS_PER_CHUNK = 2**23
PAIRS = 10**7  # permutations are fewer if all their pairs were more


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
    hyperparameters that vary and contain at most two, as in the paper. Sets with H(V_g | U_S) = 0 are left out. The
    direction of the association does not matter.

    Shares of few pairs overestimate information, and more so for large S: with three values of each of three hyperparameters
    and two of them in S, each value of U_S has nine pairs. A value is therefore to be compared with its 95 % quantile if the
    targets of configurations are permuted, so that the measure is unrelated to them.

    Args:
        runs: One row per run; see `correlations`.
        measures: Columns of `runs`.
        targets: Columns of `runs`, or generalization_gap and test_error, which are derived from the accuracies.
        group_by: The hyperparameters that make a configuration.
        keep_seeds: Whether every run is an observation; by default, the seeds of a configuration are averaged.

    Returns:
        One row per measure and target: measure, target, runs, configurations, conditional_mutual_information (the minimum),
        conditional_mutual_information_null (the quantile; NaN if there are too many pairs, or if seeds are kept), given (the
        smallest and first S that attains the minimum; empty for the empty set), mutual_information (for the empty set), and
        note: why they are undefined (NaN), else empty.

    Raises:
        InputError: If a column is missing or not numeric, or accuracies are in percent.
    """
    columns = ["conditional_mutual_information", "conditional_mutual_information_null", "given", "mutual_information"]
    return tabulate(_information, columns, runs, measures, targets, group_by, keep_seeds)


def _information(observed: Observations, measure: str, target: str) -> Statistics:
    first, second = np.nonzero(np.not_equal.outer(observed.configuration, observed.configuration))
    x, y = observed.pair(measure, target)
    permutations = min(PERMUTATIONS, PAIRS // len(first)) if len(x) == observed.configurations else 0
    generator = np.random.default_rng(0)
    targets = np.stack(
        [y, *(generator.permutation(y) for _ in range(permutations if permutations >= MIN_PERMUTATIONS else 0))]
    )
    # Encode each sign as 0, 1 or 2, and both signs in one number.
    orders = 3 * _signs(x[first] - x[second]) + _signs(targets[:, first] - targets[:, second])
    levels = observed.levels()
    varying = [position for position in range(levels.shape[1]) if len(np.unique(levels[:, position])) > 1]
    normalized: dict[tuple[int, ...], Floats] = {}
    for size in range(min(len(varying), MAX_GIVEN + 1)):
        for subset in combinations(varying, size):
            settings = combine(levels[:, subset])
            cells = np.unique(settings[first] * (settings.max() + 1) + settings[second], return_inverse=True)[1]
            normalized[subset] = _normalized_information(cells, orders)
    observed_values = {subset: values[0] for subset, values in normalized.items() if not np.isnan(values[0])}
    best = min(observed_values, key=lambda subset: observed_values[subset])
    null = np.nanmin([values[1:] for values in normalized.values()], axis=0) if len(targets) > 1 else np.array([np.nan])
    return {
        "conditional_mutual_information": observed_values[best],
        "conditional_mutual_information_null": float(np.quantile(null, 0.95)),
        "given": ", ".join(observed.settings.columns[list(best)]),
        "mutual_information": observed_values[()],
    }


def _signs(differences: Floats) -> Integers:
    return 1 + np.sign(differences).astype(np.int64)


def _normalized_information(cells: Integers, orders: Integers) -> Floats:
    """Return I(V_m; V_g | U_S) / H(V_g | U_S) for each of R targets, (R,); NaN where H is 0.

    Args:
        cells: The value of U_S of each pair, (pairs,), integers from 0.
        orders: 3 V_m + V_g of each pair, (R, pairs), with signs as 0, 1 and 2.
    """
    number = int(cells.max()) + 1
    rows = max(1, COUNTS_PER_CHUNK // (9 * number))
    if len(orders) > rows:
        return np.concatenate(
            [_normalized_information(cells, orders[start : start + rows]) for start in range(0, len(orders), rows)]
        )
    offsets = 9 * number * np.arange(len(orders))[:, None]
    counts = np.bincount((offsets + 9 * cells + orders).ravel(), minlength=9 * number * len(orders))
    shares = counts.reshape(len(orders), number, 3, 3) / orders.shape[1]
    in_cells, of_measure, of_target = shares.sum(axis=(2, 3)), shares.sum(axis=3), shares.sum(axis=2)
    entropy = _entropy(of_target) - _entropy(in_cells)
    information = _entropy(of_measure) + _entropy(of_target) - _entropy(shares) - _entropy(in_cells)
    # Round, so that sets tie if their values differ only by floating point error.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(entropy > 1e-12, np.clip(np.round(information / entropy, 12), 0, 1), np.nan)


def _entropy(shares: Floats) -> Floats:
    """Return the entropies of R distributions, in nats, (R,)."""
    return special.entr(shares).reshape(len(shares), -1).sum(axis=1)
