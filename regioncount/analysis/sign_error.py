"""How often a measure orders two configurations wrongly, in the worst case (Dziugaite et al. 2020, arXiv 2010.11924)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from regioncount.analysis.observations import HYPERPARAMETERS, TARGETS, Floats, Observations, Statistics, tabulate
from regioncount.errors import InputError


def robust_sign_error(
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str] = TARGETS,
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    test_size: int | None = None,
    keep_seeds: bool = False,
) -> pd.DataFrame:
    """Compute the sign-error of measures over environments: the maximum, a quantile and the mean.

    An environment is a pair of configurations that differ in exactly one hyperparameter. Its sign-error is the mean, over
    pairs of an observation of each, of

        (1 - sign(measure_1 - measure_2) sign(target_1 - target_2)) / 2,    0 = the same order, 1 = the opposite,

    weighted by max(w - 1/2, 0), where w = max(0, 1 - 2 exp(-test_size d^2 / 2))^2 and d = |target_1 - target_2|. By
    Hoeffding's inequality, either target is within d / 2 of its expectation with probability at least 1 - 2 exp(-test_size
    d^2 / 2). Hence w is a lower bound on the probability that the order of the targets is not due to the choice of the
    `test_size` test examples. With 10,000 examples, differences below 0.0196 have no weight. Without `test_size`, all pairs
    whose targets differ have the same weight. Environments without weight are left out.

    If seeds are averaged, an environment has one pair, and its error is 0, 1/2 or 1; the bound is then that of a single run,
    which is conservative. If seeds are kept, the mean is the paper's expectation over seeds. The paper also leaves out
    environments whose effective sample size is below 12, which takes at least four seeds; this function does not. A measure
    that decreases as the target increases has errors near 1: pass its negative. The maximum is no evidence against a measure
    if there are many environments: that of a good measure is 1 as soon as one pair is ordered wrongly, as is that of an
    unrelated measure, whose mean is 1/2.

    Args:
        runs: One row per run; see `correlations`.
        measures: Columns of `runs`.
        targets: Columns of `runs`, or generalization_gap and test_error, which are derived from the accuracies.
        group_by: The hyperparameters that make a configuration.
        test_size: The number of test examples, which gives the weights; None for an infinite test set.
        keep_seeds: Whether every run is an observation; by default, the seeds of a configuration are averaged.

    Returns:
        One row per measure and target: measure, target, runs, configurations, robust_sign_error (the maximum),
        sign_error_quantile_90 (90 % of the environments have at most this error), mean_sign_error, environments (those with
        weight), worst_environment (empty if there is no error), one column such as mean_sign_error_learning_rate per
        hyperparameter (over the environments that differ in it), and note: why they are undefined (NaN), else empty.

    Raises:
        InputError: If a column is missing or not numeric, accuracies are in percent, or test_size is not positive.
    """
    if test_size is not None and not test_size > 0:
        raise InputError(f"test_size is {test_size}: give the number of test examples, or None")

    def statistic(observed: Observations, measure: str, target: str) -> Statistics:
        return _errors(observed, measure, target, test_size)

    columns = ["robust_sign_error", "sign_error_quantile_90", "mean_sign_error", "environments", "worst_environment"]
    columns += [f"mean_sign_error_{name}" for name in group_by]
    return tabulate(statistic, columns, runs, measures, targets, group_by, keep_seeds)


def _errors(observed: Observations, measure: str, target: str, test_size: int | None) -> Statistics:
    if test_size is not None and target not in TARGETS:
        return {"note": f"undefined: test_size gives the noise of {' and '.join(TARGETS)}, not of {target}"}
    x, y = observed.pair(measure, target)
    first, code = np.unique(observed.configuration, return_index=True, return_inverse=True)[1:]
    levels = observed.levels()[first]
    environments = np.argwhere(np.triu((levels[:, None] != levels).sum(axis=2) == 1))
    if not len(environments):
        return {"note": "undefined: no two configurations differ in one hyperparameter alone"}
    number_of = np.full((len(first), len(first)), -1)
    number_of[environments[:, 0], environments[:, 1]] = np.arange(len(environments))
    of_pairs = number_of[code[:, None], code]  # pairs of observations
    one, other = np.nonzero(of_pairs >= 0)
    environment = of_pairs[one, other]
    weights = _weights(y[one] - y[other], test_size)
    wrong = (1 - np.sign(x[one] - x[other]) * np.sign(y[one] - y[other])) / 2
    totals = np.bincount(environment, weights, len(environments))
    environments, errors = environments[totals > 0], np.bincount(environment, weights * wrong, len(environments))
    errors = errors[totals > 0] / totals[totals > 0]
    if not len(errors):
        noise = "" if test_size is None else f" above the noise of {test_size} test examples"
        return {"note": f"undefined: no environment has a difference in {target}{noise}"}
    worst = int(errors.argmax())
    differing = (levels[environments[:, 0]] != levels[environments[:, 1]]).argmax(axis=1)
    names = [f"mean_sign_error_{name}" for name in observed.settings]
    of_hyperparameters = {
        name: float(errors[differing == position].mean()) for position, name in enumerate(names) if position in differing
    }
    return of_hyperparameters | {
        "robust_sign_error": float(errors[worst]),
        "sign_error_quantile_90": float(np.quantile(errors, 0.9, method="inverted_cdf")),
        "mean_sign_error": float(errors.mean()),
        "environments": len(errors),
        "worst_environment": _describe(observed, *first[environments[worst]]) if errors[worst] else "",
    }


def _weights(differences: Floats, test_size: int | None) -> Floats:
    if test_size is None:
        return 0.5 * (differences != 0)
    return np.maximum(np.maximum(0, 1 - 2 * np.exp(-test_size * differences**2 / 2)) ** 2 - 0.5, 0)


def _describe(observed: Observations, first: int, second: int) -> str:
    """Describe two observations, such as "learning_rate 0.1 or 0.01 at batch_size 256"."""
    differing = int(np.flatnonzero(observed.levels()[first] != observed.levels()[second])[0])
    settings = [(name, *map(_text, observed.settings[name].iloc[[first, second]])) for name in observed.settings]
    name, one, other = settings.pop(differing)
    shared = ", ".join(f"{name} {value}" for name, value, _ in settings)
    return f"{name} {one} or {other}" + (f" at {shared}" if shared else "")


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)
