"""Comparisons of many measures: p values corrected for their number, differences, and intervals of ranks.

Measures are compared by a = |Kendall's tau-b| of measure and target over configurations; a sign is fixed by the data.

- A p value is the share of permutations of the targets among configurations in which a is at least as large. The adjusted
  one is the share in which the largest a of all measures is (max-T, Westfall and Young 1993). It bounds the probability
  that any unrelated measure is called related. If measures are missing in some configurations, each a is in units of the
  standard deviation of tau over permutations without ties.
- The interval of a difference of two measures combines their intervals and the correlation of the two estimates, which
  the jackknife gives (Zou 2007, "Toward using confidence intervals to compare correlations").
- The interval of a measure's rank counts the measures that are better or worse beyond their simultaneous intervals (Mogstad
  et al. 2024, "Inference for Ranks"). These are the intervals of differences, widened by the quantile of the largest of all
  studentized differences, a multivariate t distribution with n - 2 degrees of freedom.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from regioncount.analysis.correlation import weighted_statistics
from regioncount.analysis.intervals import Floats, interval, jackknife_error
from regioncount.analysis.observations import MIN_CONFIGURATIONS

KENDALL = 2  # its position in `weighted_statistics`
PERMUTATIONS = 9999  # p values have a standard error of 0.002 at 0.05
MIN_PERMUTATIONS = 199
PAIRS = 2**29  # permutations are fewer if all their pairs of configurations were more, from 330 configurations on
PAIRS_PER_CHUNK = 2**24
DRAWS = 4000  # of the largest studentized difference


@dataclass(frozen=True, eq=False)
class Associations:
    """Kendall's tau of M measures with a target, made positive, over n configurations."""

    values: Floats
    """|tau|, (M,); NaN if undefined."""
    ends: Floats
    """The interval of each, (M, 2); NaN if there is none."""
    without: Floats
    """The same without each configuration, (M, n), with the sign of `values`."""
    level: float
    """The nominal coverage of intervals."""

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Which measures have an interval, (M,)."""
        return np.isfinite(self.ends[:, 0] + self.ends[:, 1])


def associate(measures: Floats, targets: Floats, level: float) -> Associations:
    """Compute |tau| of each measure and the target.

    Args:
        measures: The measures of each configuration, (n, M); NaN where a measure is missing.
        targets: The target of each configuration, averaged over the runs that have the measure, (n, M), or over all, (n,).
        level: The nominal coverage of intervals.

    Returns:
        |tau|, its intervals, and its values without each configuration.
    """
    n, number = measures.shape
    values, ends, without = np.full(number, np.nan), np.full((number, 2), np.nan), np.full((number, n), np.nan)
    targets = np.broadcast_to(targets.reshape(n, -1), measures.shape)
    for position, (column, target) in enumerate(zip(measures.T, targets.T, strict=True)):
        present = np.flatnonzero(np.isfinite(column))
        if len(present) < MIN_CONFIGURATIONS:
            continue
        weights = np.vstack([np.ones(len(present)), 1 - np.eye(len(present))])
        taus = weighted_statistics(column[present], target[present], weights)[:, KENDALL]
        sign = -1 if taus[0] < 0 else 1
        values[position] = sign * taus[0]
        without[position] = values[position]  # without a configuration where the measure is missing
        without[position, present] = sign * taus[1:]
        levels = min(len(np.unique(values)) for values in (column[present], target[present]))
        ends[position] = interval(values[position], without[position, present], "kendall", level, levels)
    return Associations(values, ends, without, level)


def permutation_p_values(measures: Floats, target: Floats, seed: int = 0) -> tuple[Floats, Floats]:
    """Return two-sided p values of Kendall's tau of each measure and the target, and the adjusted ones, (M,) each.

    Args:
        measures: The measures of each configuration, (n, M); NaN where a measure is missing.
        target: The target of each configuration, (n,).
        seed: The seed of the permutations.
    """
    first, second = np.triu_indices(len(target), 1)
    signs = np.stack([np.sign(column[first] - column[second]).astype(np.float32) for column in measures.T], axis=1)
    present = np.isfinite(signs).astype(np.float32)
    signs = np.nan_to_num(signs)
    untied = (signs**2).sum(axis=0)
    permutations = max(MIN_PERMUTATIONS, min(PERMUTATIONS, PAIRS // max(len(first), 1)))
    generator = np.random.default_rng(seed)
    orders = np.stack([np.arange(len(target)), *(generator.permutation(len(target)) for _ in range(permutations))])
    taus = np.empty((len(orders), measures.shape[1]))
    rows = max(1, PAIRS_PER_CHUNK // max(len(first), 1))
    for start in range(0, len(orders), rows):
        permuted = target[orders[start : start + rows]]
        permuted_signs = np.sign(permuted[:, first] - permuted[:, second]).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            taus[start : start + rows] = np.abs(permuted_signs @ signs) / np.sqrt(permuted_signs**2 @ present * untied)
    number = np.isfinite(measures).sum(axis=0)
    defined = np.isfinite(taus).all(axis=0) & (number >= MIN_CONFIGURATIONS)
    p_values, adjusted = np.full(len(untied), np.nan), np.full(len(untied), np.nan)
    if defined.any():
        number = number[defined]
        deviation = np.sqrt(2 * (2 * number + 5) / (9 * number * (number - 1)))
        scaled = np.round(taus[:, defined] / deviation, 4)  # so that equal values of floats of 32 bits tie
        p_values[defined] = (scaled >= scaled[0]).mean(axis=0)
        adjusted[defined] = (scaled.max(axis=1)[:, None] >= scaled[0]).mean(axis=0)
    return p_values, adjusted


def differences(associations: Associations, other: int) -> Floats:
    """Return |tau| of each measure minus that of measure `other`, and the ends of its interval, (M, 3)."""
    a, ends, without = associations.values, associations.ends, associations.without
    difference = a - a[other]
    correlation = _correlations(without, other)
    below, above = a - ends[:, 0], ends[:, 1] - a
    low = np.sqrt(np.maximum(below**2 + above[other] ** 2 - 2 * correlation * below * above[other], 0))
    high = np.sqrt(np.maximum(above**2 + below[other] ** 2 - 2 * correlation * above * below[other], 0))
    result = np.clip(np.stack([difference, difference - low, difference + high], axis=1), -1, 1)
    # Measures that order the same configurations alike do not differ.
    same = (np.abs(without - without[other]).max(axis=1) < 1e-12) & (ends == ends[other]).all(axis=1)
    result[same, 1:] = 0
    return result


def rank_intervals(associations: Associations) -> Floats:
    """Return the interval of each measure's rank, (M, 2); rank 1 has the largest |tau|. NaN without an interval of tau."""
    number, n = associations.without.shape
    intervals = np.full((number, 2), np.nan)
    compared = np.flatnonzero(associations.comparable)
    if not len(compared):
        return intervals
    chosen = Associations(
        associations.values[compared], associations.ends[compared], associations.without[compared], associations.level
    )
    influences = chosen.without - chosen.without.mean(axis=1, keepdims=True)
    generator = np.random.default_rng(0)
    draws = generator.standard_normal((DRAWS, n)) @ influences.T
    draws *= np.sqrt((n - 1) / n) / np.sqrt(generator.chisquare(n - 2, (DRAWS, 1)) / (n - 2))
    single = special.stdtrit(n - 2, (1 + associations.level) / 2)
    for position, measure in enumerate(compared):
        errors = jackknife_error(chosen.without - chosen.without[position])
        varying = errors > 1e-12
        largest = np.abs((draws[:, varying] - draws[:, [position]]) / errors[varying]).max(axis=1, initial=0)
        widening = max(1, np.quantile(largest, associations.level) / single)
        centre, low, high = differences(chosen, position).T
        worse = centre + widening * (high - centre) < 0
        better = centre - widening * (centre - low) > 0
        # Measures without an interval may be better or worse.
        intervals[measure] = 1 + better.sum(), np.isfinite(associations.values).sum() - worse.sum()
    return intervals


def _correlations(without: Floats, other: int) -> Floats:
    """Return the correlation of each estimate with that of measure `other` over the jackknife, (M,); 0 without variance."""
    centred = without - without.mean(axis=1, keepdims=True)
    products = centred @ centred[other]
    scale = np.sqrt((centred**2).sum(axis=1) * (centred[other] ** 2).sum())
    return np.divide(products, scale, out=np.zeros_like(products), where=scale > 1e-12)
