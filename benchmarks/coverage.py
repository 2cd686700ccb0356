"""Measure by simulation how often the intervals and tests of regioncount.analysis are right.

python benchmarks/coverage.py [--samples 4000] [--sizes 7 9 27] [--parts intervals comparisons reliability alternatives]

intervals: the coverage of 95 % intervals of Pearson's r, Spearman's rho and Kendall's tau of n configurations, for data that
are normal, heavy-tailed (Student's t with 3 degrees of freedom) or clustered (normal, with a third of the configurations
moved by 3 standard deviations in both variables). In brackets: the shares of samples whose interval lies above and below the
truth.

comparisons: for twelve measures with common noise, the coverage of the intervals of differences and ranks; and for twelve
unrelated measures, the share of samples in which any adjusted p value is at most 0.05.

reliability: the coverage of intervals of correlations corrected for attenuation, for three seeds of each configuration.

alternatives: the lowest coverage over r of other intervals: Fisher's and percentile bootstrap intervals of Pearson's r (999
resamples), and those of rank correlations with the standard errors of Bonett and Wright (2000).
"""

import argparse
import math
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from regioncount.analysis import intervals, multiplicity, reliability

SIZES = (5, 6, 7, 8, 9, 12, 18, 27, 81)
CORRELATIONS = (0.0, 0.5, 0.9, 0.98)
DISTRIBUTIONS = ("normal", "heavy-tailed", "clustered")
SHIFT = 3.0
LEVEL = 0.95


def draw(distribution: str, n: int, rho: float, samples: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Return x and y, (samples, n) each, with x in increasing order."""
    x, noise = generator.standard_normal((2, samples, n))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    if distribution == "heavy-tailed":
        scale = np.sqrt(3 / generator.chisquare(3, (samples, n)))
        x, y = x * scale, y * scale
    elif distribution == "clustered":
        apart = SHIFT * (np.arange(n) < round(n / 3))
        x, y = x + apart, y + apart
    order = np.argsort(x, axis=1)
    return [np.take_along_axis(values, order, axis=1) for values in (x, y)]


def truths(distribution: str, n: int, rho: float) -> np.ndarray:
    """Return the population's Pearson, Spearman and Kendall correlation, (3,), by simulation unless they are known."""
    known = intervals.population_values(rho)
    if distribution == "normal":
        return known
    if distribution == "clustered":  # the shares of the two groups depend on n
        n = 3000 // n * n
    x, y = draw(distribution, 3000 if distribution != "clustered" else n, rho, 40, np.random.default_rng(0))
    if distribution == "clustered":
        apart = round(n / 3) / n
        variance = 1 + SHIFT**2 * apart * (1 - apart)
        known[0] = (rho + variance - 1) / variance
    known[1] = np.mean([stats.spearmanr(*pair).statistic for pair in zip(x, y, strict=True)])
    if distribution == "clustered":
        known[2] = np.mean([stats.kendalltau(*pair).statistic for pair in zip(x, y, strict=True)])
    return known


def interval_coverage(sizes: list[int], samples: int, seed: int) -> Iterator[str]:
    """Yield a table of the coverage of intervals, line by line."""
    yield f"| data | n | r | {' | '.join(name.capitalize() for name in intervals.STATISTICS)} |"
    yield "|---|---|---|---|---|---|"
    for distribution in DISTRIBUTIONS:
        for n in sizes:
            for rho in CORRELATIONS:
                generator = np.random.default_rng([seed, n, round(100 * rho)])
                drawn = intervals.without_each(*draw(distribution, n, rho, samples, generator))
                cells = []
                for name, truth in zip(intervals.STATISTICS, truths(distribution, n, rho), strict=True):
                    ends = np.array([intervals.interval(*pair, name, LEVEL) for pair in zip(*drawn[name], strict=True)])
                    cells.append(_coverage(ends, truth))
                yield f"| {distribution} | {n} | {rho:g} | {' | '.join(cells)} |"


def comparison_coverage(sizes: list[int], samples: int, seed: int) -> Iterator[str]:
    """Yield a table of the coverage of differences and ranks, and of family-wise errors."""
    correlations = np.array([0.95, 0.95, 0.9, 0.8, 0.7, 0.5, 0.5, 0.3, 0.2, 0.1, 0.05, 0.0])
    taus = intervals.population_values(correlations)[2]
    best, worst = (taus[:, None] < taus).sum(axis=1) + 1, (taus[:, None] <= taus).sum(axis=1)
    yield "| n | difference to a better measure | rank, lowest of the measures | contains the best | any unrelated measure |"
    yield "|---|---|---|---|---|"
    for n in sizes:
        if n < intervals.MIN_OBSERVATIONS:
            continue
        generator = np.random.default_rng([seed, n])
        differences, ranks, leading, errors = [], [], [], []
        for _ in range(samples):
            target, common = generator.standard_normal((2, n))
            own = generator.standard_normal((n, len(correlations)))
            noise = (common[:, None] + own) / math.sqrt(2)
            measures = correlations * target[:, None] + np.sqrt(1 - correlations**2) * noise
            associations = multiplicity.associate(measures, target, LEVEL)
            _, low, high = multiplicity.differences(associations, 0)[[3, 5, 7]].T
            truth = taus[[3, 5, 7]] - taus[0]
            differences.append((low <= truth) & (truth <= high))
            low, high = multiplicity.rank_intervals(associations).T
            ranks.append((low <= worst) & (best <= high))
            leading.append(low[0] == 1)
            unrelated = generator.standard_normal((n, len(correlations)))
            errors.append((multiplicity.permutation_p_values(unrelated, target)[1] <= 1 - LEVEL).any())
        shares = [np.mean(differences), np.mean(ranks, axis=0).min(), np.mean(leading), np.mean(errors)]
        yield f"| {n} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |"


def reliability_coverage(sizes: list[int], samples: int, seed: int) -> Iterator[str]:
    """Yield a table of the coverage of corrected correlations; seed effects have the correlation -0.5."""
    yield "| n | r | seed variance / configuration variance | coverage where testable | testable |"
    yield "|---|---|---|---|---|"
    for n in sizes:
        if n < intervals.MIN_OBSERVATIONS:
            continue
        for rho in (0.5, 0.9):
            for noise in (0.1, 1.0):
                generator = np.random.default_rng([seed, n])
                tables = [_corrected(n, rho, noise, generator) for _ in range(samples)]
                ends = np.array([pair for pair in tables if np.isfinite(pair).all()])
                share = len(ends) / samples
                yield f"| {n} | {rho:g} | {noise:g} | {_coverage(ends, rho)} | {100 * share:.0f} % |"


def _corrected(n: int, rho: float, noise: float, generator: np.random.Generator) -> tuple[float, float]:
    """Return the interval of the corrected correlation of a table of n configurations with three seeds."""
    effects, errors = generator.standard_normal((n, 2)), math.sqrt(noise) * generator.standard_normal((3 * n, 2))
    effects[:, 1] = rho * effects[:, 0] + math.sqrt(1 - rho**2) * effects[:, 1]
    errors[:, 1] = -0.5 * errors[:, 0] + math.sqrt(0.75) * errors[:, 1]
    values = np.repeat(effects, 3, axis=0) + errors
    runs = pd.DataFrame({"configuration": np.repeat(np.arange(n), 3), "measure": values[:, 0]})
    runs = runs.assign(train_accuracy=1.0, test_accuracy=0.5 - 0.02 * values[:, 1])
    result = reliability(runs, ["measure"], ["test_error"], ["configuration"], level=LEVEL).iloc[0]
    return result["corrected_correlation_low"], result["corrected_correlation_high"]


def alternative_coverage(sizes: list[int], samples: int, seed: int) -> Iterator[str]:
    """Yield a table of the lowest coverage of other intervals over r, line by line."""
    yield "| data | n | Pearson, Fisher | Pearson, percentile bootstrap | Spearman, Bonett-Wright | Kendall, Bonett-Wright |"
    yield "|---|---|---|---|---|---|"
    for distribution in DISTRIBUTIONS:
        for n in sizes:
            lowest = np.full(4, 1.0)
            for rho in CORRELATIONS:
                generator = np.random.default_rng([seed, n, round(100 * rho)])
                x, y = draw(distribution, n, rho, samples, generator)
                drawn, truth = intervals.without_each(x, y), truths(distribution, n, rho)
                values = [drawn[name][0] for name in intervals.STATISTICS]
                errors = [n - 3, (n - 3) / (1 + values[1] ** 2 / 2), (n - 4) / 0.437]  # inverse variances of Fisher's z
                fisher = [_fisher(value, inverse) for value, inverse in zip(values, errors, strict=True)]
                ends = [fisher[0], _percentile(x, y, generator), fisher[1], fisher[2]]
                for position, (pair, name) in enumerate(zip(ends, (0, 0, 1, 2), strict=True)):
                    covered = (pair[0] <= truth[name]) & (truth[name] <= pair[1])
                    lowest[position] = min(lowest[position], covered.mean())
            yield f"| {distribution} | {n} | {' | '.join(f'{100 * share:.1f} %' for share in lowest)} |"


def _fisher(values: np.ndarray, inverse: np.ndarray | float) -> np.ndarray:
    """Return the ends of intervals on the scale of Fisher's z, (2, samples)."""
    reach = stats.norm.ppf((1 + LEVEL) / 2) / np.sqrt(inverse)
    with np.errstate(divide="ignore"):
        return np.tanh(np.arctanh(values) + np.multiply.outer([-1, 1], reach * np.ones(len(values))))


def _percentile(x: np.ndarray, y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the ends of percentile bootstrap intervals of Pearson's r, (2, samples)."""
    n = x.shape[1]
    weights = generator.multinomial(n, np.full(n, 1 / n), size=999) / n
    ends = []
    for one, other in zip(x, y, strict=True):
        a, b = one - (weights @ one)[:, None], other - (weights @ other)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            r = (weights * a * b).sum(axis=1) / np.sqrt((weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1))
        ends.append(np.nanquantile(r, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return np.transpose(ends)


def _coverage(ends: np.ndarray, truth: float) -> str:
    if not np.isfinite(ends).any():
        return "-"
    above, below = (truth < ends[:, 0]).mean(), (truth > ends[:, 1]).mean()
    return f"{100 * (1 - above - below):.1f} % ({100 * above:.1f}, {100 * below:.1f})"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"intervals": interval_coverage, "comparisons": comparison_coverage, "reliability": reliability_coverage}
    parts["alternatives"] = alternative_coverage
    parser.add_argument(
        "--samples", type=int, default=4000, help="default: 4000; a coverage of 95 %% has an error of 0.3 %%"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of configurations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    options = parser.parse_args()
    for part in options.parts:
        print(f"{part}, {options.samples} samples")
        for line in parts[part](options.sizes, options.samples, options.seed):
            print(line)
            sys.stdout.flush()
        print()


if __name__ == "__main__":
    main()
