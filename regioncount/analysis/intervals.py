"""Confidence intervals of correlations, by inversion of tests whose null distributions are simulated.

Let T be the correlation of n observations and S its jackknife standard error. The statistic for the hypothesis that the
population's correlation is t is

    (artanh T - artanh t) (1 - T^2) / S,

the difference on the scale of Fisher's z in units of its standard error by the delta method. Its distribution is simulated
with bivariate normal data of n observations. The interval contains each t that a test with half of 1 - level in either tail
does not reject, so its coverage on normal data is the level, up to the discreteness of rank correlations. Because S is
estimated, the coverage on other data is close to it; standard errors that hold for normal data alone, as Fisher's
1 / sqrt(n - 3), cover too little there. A perfect order has the statistic infinity. Its interval is one-sided: it contains
each t at which the probability of a perfect order is above that of a tail.

`benchmarks/coverage.py` measures the coverage; docs/statistics.md has the table.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

STATISTICS = ("pearson", "spearman", "kendall")
MIN_OBSERVATIONS = 7  # with fewer, more than 98 % of the intervals of rank correlations cover
MAX_SIMULATED = 81  # the distribution of the statistic hardly changes with more observations
SAMPLES = 4000  # a simulated tail of 0.025 has a standard error of 0.0025
SCALE = np.linspace(-8, 8, 16001)  # hypotheses artanh t
NORMAL_CORRELATIONS = np.tanh(np.linspace(0, 4.8, 25))  # of the simulated data; quantiles in between are interpolated


def interval(value: float, without: Floats, statistic: str, level: float, levels: int | None = None) -> tuple[float, float]:
    """Return the confidence interval of a correlation.

    Args:
        value: The correlation of n observations.
        without: The correlation without each observation, (n,). If observations come in groups, n is the number of groups,
            and these are the correlations without each group.
        statistic: pearson, spearman or kendall.
        level: The nominal coverage.
        levels: The number of distinct values of the variable that has fewer; by default n. If all pairs that are not tied
            are in the same order, it takes the place of n.

    Returns:
        The ends. They are NaN if n is below `MIN_OBSERVATIONS`, if the correlation without some observation is undefined, if
        it is the same without any, or if Pearson's r is 1 or -1.
    """
    n = len(without)
    if n < MIN_OBSERVATIONS or not np.isfinite([value, *without]).all():
        return math.nan, math.nan
    tail = (1 - level) / 2
    if abs(value) == 1:
        levels = n if levels is None else levels
        if statistic == "pearson" or levels < MIN_OBSERVATIONS:
            return math.nan, math.nan
        bound = float(_bound_of_perfect_order(min(levels, MAX_SIMULATED), tail)[STATISTICS.index(statistic)])
        return (bound, 1.0) if value > 0 else (-1.0, -bound)
    low, high = _quantiles(min(n, MAX_SIMULATED), statistic, tail)
    statistics = studentized(value, without, SCALE)
    accepted = SCALE[(low <= statistics) & (statistics <= high)]
    if not len(accepted):
        if abs(math.atanh(value)) > SCALE[-1]:  # nearer to 1 than any hypothesis
            return (math.tanh(SCALE[-1]), 1.0) if value > 0 else (-1.0, -math.tanh(SCALE[-1]))
        return math.nan, math.nan  # S is 0
    ends = [math.copysign(1, end) if abs(end) == SCALE[-1] else math.tanh(end) for end in (accepted[0], accepted[-1])]
    return ends[0], ends[1]


def jackknife_error(without: Floats) -> Floats:
    """Return the jackknife standard errors of statistics from their values without each observation, (..., n)."""
    n = without.shape[-1]
    return np.sqrt((n - 1) / n * ((without - without.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1))


def fisher_error(value: float, without: Floats) -> float:
    """Return the standard error of Fisher's z of a correlation; NaN without an interval, or if the correlation is 1 or -1.

    The arguments are those of `interval`.
    """
    if len(without) < MIN_OBSERVATIONS or abs(value) == 1:
        return math.nan
    return float(jackknife_error(without) / (1 - value**2))


def compare(values: tuple[float, float], errors: tuple[float, float], numbers: tuple[int, int]) -> float:
    """Return the two-sided p value of the hypothesis that two independent samples have the same correlation.

    The difference on the scale of Fisher's z in units of its standard error is compared with Student's t distribution, with
    the degrees of freedom of Welch (1947).

    Args:
        values: The correlations.
        errors: The standard errors of their Fisher's z; see `fisher_error`.
        numbers: The numbers of observations.

    Returns:
        The p value; NaN if a standard error is, or if a correlation is 1 or -1. It is too large for rank correlations of
        few observations: where both are equal, 1 to 3 % of the values for Kendall's tau are below 0.05 with fewer than 28.
    """
    variances = np.square(errors)
    if not np.isfinite(variances).all() or not variances.any() or max(map(abs, values)) == 1 or min(numbers) < 3:
        return math.nan
    statistic = (math.atanh(values[0]) - math.atanh(values[1])) / math.sqrt(variances.sum())
    degrees = variances.sum() ** 2 / sum(variance**2 / (n - 2) for variance, n in zip(variances, numbers, strict=True))
    return float(2 * special.stdtr(degrees, -abs(statistic)))


def studentized(values: Floats | float, without: Floats, scale: Floats | float) -> Floats:
    """Return the test statistics of correlations (...) for hypotheses on the scale of Fisher's z (broadcast).

    `without` are the correlations without each observation, (..., n).
    """
    values = np.asarray(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.arctanh(values) - scale
        ratio = distance * (1 - values**2) / jackknife_error(without)
    return np.where(np.isfinite(ratio), ratio, np.where(distance == 0, 0, np.copysign(np.inf, distance)))


def population_values(rho: Floats | float) -> Floats:
    """Return Pearson's, Spearman's and Kendall's correlation of bivariate normal data, (3, ...), from Pearson's (...)."""
    rho = np.asarray(rho, dtype=float)
    return np.stack([rho, 6 / np.pi * np.arcsin(rho / 2), 2 / np.pi * np.arcsin(rho)])


def simulate(n: int, rho: float, samples: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw samples of bivariate normal data with Pearson correlation rho: increasing x, and y, (samples, n) each."""
    x = np.sort(generator.standard_normal((samples, n)), axis=1)
    return x, rho * x + math.sqrt(1 - rho**2) * generator.standard_normal((samples, n))


def without_each(x: Floats, y: Floats) -> dict[str, tuple[Floats, Floats]]:
    """Return each statistic of samples (R, n) without ties: its value (R,), and its values without each observation (R, n).

    Args:
        x: Values in increasing order within each sample.
        y: Values.
    """
    ranks = np.argsort(np.argsort(y, axis=1), axis=1)
    n = ranks.shape[1]
    # For each observation, how many others have a lower x and a lower y, and how many a higher x and a higher y, (R, n).
    below = np.stack([(ranks[:, :i] < ranks[:, i, None]).sum(axis=1) for i in range(n)], axis=1)
    above = n - 1 - ranks - np.arange(n) + below
    return {"pearson": _pearson(x, y), "spearman": _spearman(ranks, above), "kendall": _kendall(below + above)}


def _pearson(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    xx, yy, xy = ((a * b).sum(axis=1, keepdims=True) for a, b in ((x, x), (y, y), (x, y)))
    factor = x.shape[1] / (x.shape[1] - 1)
    without = (xy - factor * x * y) / np.sqrt((xx - factor * x**2) * (yy - factor * y**2))
    return (xy / np.sqrt(xx * yy))[:, 0], without


def _kendall(concordant: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Compute tau from the number of observations with which each is concordant, (R, n)."""
    n = concordant.shape[1]
    balance = 2 * concordant - (n - 1)  # concordant minus discordant
    total = balance.sum(axis=1, keepdims=True) / 2
    return total[:, 0] / (n * (n - 1) / 2), (total - balance) / ((n - 1) * (n - 2) / 2)


def _spearman(ranks: NDArray[np.int64], above: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Compute rho from ranks of y, from 0, in the order of x, and the number of observations above in both, (R, n) each."""
    n = ranks.shape[1]
    order, position = np.argsort(ranks, axis=1), np.arange(n)
    products = (ranks * position).sum(axis=1, keepdims=True)
    later_ranks = ranks.sum(axis=1, keepdims=True) - np.cumsum(ranks, axis=1)
    later_positions = order.sum(axis=1, keepdims=True) - np.cumsum(order, axis=1)
    higher_positions = np.take_along_axis(later_positions, ranks, axis=1)
    # Without an observation, all ranks above its own decrease by 1.
    without = products - ranks * position - later_ranks - higher_positions + above
    return _rho(products[:, 0], n), _rho(without, n - 1)


def _rho(products: Floats, n: int) -> Floats:
    """Return Spearman's rho from the sum of products of ranks 0 to n - 1."""
    return (products - n * ((n - 1) / 2) ** 2) / (n * (n**2 - 1) / 12)


@functools.lru_cache(maxsize=64)
def _null_distributions(n: int) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return for each statistic the hypotheses artanh t, (K,), and the sorted simulated test statistics, (K, SAMPLES)."""
    scales, distributions = np.arctanh(population_values(NORMAL_CORRELATIONS)), {name: [] for name in STATISTICS}
    for position, rho in enumerate(NORMAL_CORRELATIONS):
        samples = without_each(*simulate(n, rho, SAMPLES, np.random.default_rng(0)))
        for name, scale in zip(STATISTICS, scales[:, position], strict=True):
            distributions[name].append(np.sort(studentized(*samples[name], scale)))
    return dict(zip(STATISTICS, scales, strict=True)), {name: np.stack(rows) for name, rows in distributions.items()}


@functools.lru_cache(maxsize=256)
def _quantiles(n: int, statistic: str, tail: float) -> tuple[Floats, Floats]:
    """Return the quantiles `tail` and 1 - `tail` of the test statistic for each hypothesis of `SCALE`."""
    scales, distributions = _null_distributions(n)
    scale, sorted_statistics = scales[statistic], distributions[statistic]
    rank = max(round(tail * SAMPLES), 1)
    low, high = sorted_statistics[:, rank - 1], sorted_statistics[:, SAMPLES - rank]
    # The distribution at -t mirrors the one at t. Quantiles may be infinite, where perfect orders are likely.
    return (_interpolate(scale, low, -high), -_interpolate(scale, low, -high)[::-1])


def _interpolate(scale: Floats, low: Floats, mirrored: Floats) -> Floats:
    both = np.concatenate([mirrored[:0:-1], low])
    with np.errstate(invalid="ignore"):
        values = np.interp(SCALE, np.concatenate([-scale[:0:-1], scale]), both)
    return np.where(np.isnan(values), -np.inf, values)


@functools.lru_cache(maxsize=256)
def _bound_of_perfect_order(n: int, tail: float) -> Floats:
    """Return the lower bounds of Pearson's, Spearman's and Kendall's correlation, given a perfect order, (3,).

    With x in increasing order and independent noise e, y = rho x + sqrt(1 - rho^2) e is in increasing order if and only if
    rho / sqrt(1 - rho^2) exceeds each (e_i - e_(i+1)) / (x_(i+1) - x_i).
    """
    x, noise = simulate(n, 0, 10 * SAMPLES, np.random.default_rng(0))
    slope = np.quantile((-np.diff(noise, axis=1) / np.diff(x, axis=1)).max(axis=1), tail)
    return population_values(slope / math.hypot(1, slope))
