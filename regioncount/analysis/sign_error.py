"""How often a measure orders two configurations wrongly, at worst (Dziugaite et al. 2020, arXiv 2010.11924)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from regioncount.analysis.observations import HYPERPARAMETERS, TARGETS, Observations, tabulate
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
    """The sign-error of measures and targets in the worst environment, and its mean over environments.

    An environment is a pair of configurations that differ in exactly one hyperparameter. Its sign-error is the mean, over
    the pairs of an observation of the one and an observation of the other, of

        (1 - sign(measure_1 - measure_2) sign(target_1 - target_2)) / 2,    0 = the same order, 1 = the opposite,

    weighted by max(w - 1/2, 0), w = max(0, 1 - 2 exp(-test_size d^2 / 2))^2, d = |target_1 - target_2|. By Hoeffding's
    inequality either target lies within d / 2 of its expectation with probability at least 1 - 2 exp(-test_size d^2 / 2), so
    that w bounds from below the probability that the order of the targets is no accident of a test set of `test_size`
    examples (10,000 examples: differences below 0.0196 weigh nothing). Without test_size every pair whose targets differ
    weighs the same, as with an endless test set. An environment without weight does not enter.

    Averaged seeds leave one pair to an environment, whose error is 0, 1/2 or 1; the bound is then the one for a single run,
    which is cautious. Kept seeds give the paper's expectation over them. The paper also drops environments of an effective
    sample size below 12, which takes at least four seeds; here none is dropped for that. A measure that falls where
    the target rises has errors near 1: give its negative.

    runs, measures, targets, group_by and keep_seeds are those of `correlations`. Returns a row a measure and target:
    measure, target, runs, configurations, robust_sign_error (the maximum), mean_sign_error, environments (how many entered),
    worst_environment in words (empty where there is no
    error), and note, which says why they are undefined (NaN).

    Raises InputError where a column is missing or not numeric, where accuracies are in percent, and where test_size is not
    positive.
    """
    if test_size is not None and not test_size > 0:
        raise InputError(f"test_size is {test_size}: the number of test examples is needed, or None")

    def statistic(observed: Observations, measure: str, target: str) -> dict:
        return _errors(observed, measure, target, test_size)

    columns = ["robust_sign_error", "mean_sign_error", "environments", "worst_environment"]
    return tabulate(statistic, columns, runs, measures, targets, group_by, keep_seeds)


def _errors(observed: Observations, measure: str, target: str, test_size: int | None) -> dict:
    if test_size is not None and target not in TARGETS:
        return {"note": f"undefined: test_size gives the noise of {' and '.join(TARGETS)}, not that of {target}"}
    x, y = observed.pair(measure, target)
    of = [np.flatnonzero(observed.configuration == configuration) for configuration in np.unique(observed.configuration)]
    levels = observed.levels()[[rows[0] for rows in of]]
    differences = (levels[:, None] != levels).sum(axis=2)
    environments = np.argwhere(np.triu(differences == 1))
    if not len(environments):
        return {"note": "undefined: no two configurations differ in one hyperparameter alone"}
    errors = {}
    for first, second in environments:
        x_difference, y_difference = (np.subtract.outer(values[of[first]], values[of[second]]) for values in (x, y))
        weights = _weights(y_difference, test_size)
        if weights.any():
            error = (1 - np.sign(x_difference) * np.sign(y_difference)) / 2
            errors[first, second] = float((weights * error).sum() / weights.sum())
    if not errors:
        examples = "" if test_size is None else f", all being below the noise of {test_size} test examples"
        return {"note": f"undefined: no difference of {target} between configurations can be told{examples}"}
    worst = max(errors, key=errors.get)
    return {
        "robust_sign_error": errors[worst],
        "mean_sign_error": float(np.mean(list(errors.values()))),
        "environments": len(errors),
        "worst_environment": _describe(observed, *(of[configuration][0] for configuration in worst))
        if errors[worst]
        else "",
    }


def _weights(differences: np.ndarray, test_size: int | None) -> np.ndarray:
    if test_size is None:
        return 0.5 * (differences != 0)
    return np.maximum(np.maximum(0, 1 - 2 * np.exp(-test_size * differences**2 / 2)) ** 2 - 0.5, 0)


def _describe(observed: Observations, first: int, second: int) -> str:
    """Two observations in words: learning_rate 0.1 or 0.01 at batch_size 256."""
    levels = observed.levels()
    one, other = (
        [f"{name} {_text(value)}" for name, value in observed.settings.iloc[row].items()] for row in (first, second)
    )
    differing = int(np.flatnonzero(levels[first] != levels[second])[0])
    pair = f"{one.pop(differing)} or {other[differing].split(maxsplit=1)[1]}"
    return pair + (f" at {', '.join(one)}" if one else "")


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)
