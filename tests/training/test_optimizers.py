"""Optimizers and learning rate schedules are built from their options."""

import math

import pytest
from tiny_training import configuration, train, with_sam

from regioncount.errors import InputError


@pytest.mark.parametrize("rho", [0, -0.1, None, True, math.inf, "far"])
def test_sam_needs_a_rho_above_zero(rho):
    with pytest.raises(InputError, match=r"optimizer\.rho"):
        with_sam(rho)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({"name": "constant"}, [1, 1, 1, 1]),
        ({"name": "cosine"}, [(1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]),
        ({"name": "step", "step_size": 2, "gamma": 0.1}, [1, 1, 0.1, 0.1]),
        ({"name": "multistep", "milestones": [1, 3], "gamma": 0.1}, [1, 0.1, 0.1, 0.01]),
        ({"name": "exponential", "gamma": 0.5}, [1, 0.5, 0.25, 0.125]),
    ],
)
def test_schedules_match_their_formulas(schedule, rates):
    _, history = train(configuration(schedule=schedule))
    assert [row["learning_rate"] for row in history] == pytest.approx([0.1 * rate for rate in rates])
