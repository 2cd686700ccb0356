"""Statistics over runs: how measures relate to generalization, from a table of runs to a table of statistics.

The table has one row per run, with columns of hyperparameters and measures, train_accuracy and test_accuracy. Accuracies are
fractions in [0, 1]; the generalization gap is their difference. docs/statistics.md explains each statistic.
`python -m regioncount.analysis` ranks the measures of a CSV file.
"""

from regioncount.analysis.correlation import STATISTICS, correlations
from regioncount.analysis.granulated import granulated_kendall
from regioncount.analysis.information import conditional_mutual_information
from regioncount.analysis.observations import MIN_CONFIGURATIONS
from regioncount.analysis.partial import partial_correlations
from regioncount.analysis.ranking import describe_ranking, ranking
from regioncount.analysis.regression import describe_regression, regression
from regioncount.analysis.reliability import describe_reliability, reliability
from regioncount.analysis.selection import FITTED_ACCURACY, SELECTIONS, mark, select, with_targets
from regioncount.analysis.sign_error import robust_sign_error

__all__ = [
    "FITTED_ACCURACY",
    "MIN_CONFIGURATIONS",
    "SELECTIONS",
    "STATISTICS",
    "conditional_mutual_information",
    "correlations",
    "describe_ranking",
    "describe_regression",
    "describe_reliability",
    "granulated_kendall",
    "mark",
    "partial_correlations",
    "ranking",
    "regression",
    "reliability",
    "robust_sign_error",
    "select",
    "with_targets",
]
