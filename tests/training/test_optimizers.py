"""Optimizers and learning rate schedules are built from their options."""

import copy
import math

import pytest
from tiny_training import assert_same_weights, configuration, train, with_sam

from regioncount.errors import InputError


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"epochs": 3}, "at least epochs=4"),
        ({"warmup": 4}, "below the 4 epochs"),
        ({"warmup": -1}, "at least 0"),
        ({"final": 0.2}, "at most optimizer"),
    ],
)
def test_a_schedule_is_longer_than_training_and_warm_up(options, reason):
    with pytest.raises(InputError, match=reason):
        configuration(schedule={"name": "cosine", **options})


def test_a_warmed_up_run_resumes_with_the_weights_of_an_uninterrupted_one():
    config = configuration(schedule={"name": "cosine", "warmup": 2, "epochs": 9})
    states = []
    whole, history = train(config, on_epoch=lambda row, state: states.append(copy.deepcopy(state())))
    for state in states[:-1]:
        resumed, rates = train(config, checkpoint=state)
        assert [row["learning_rate"] for row in rates] == [row["learning_rate"] for row in history]
        assert_same_weights(resumed, whole)


@pytest.mark.parametrize("rho", [0, -0.1, None, True, math.inf, "far"])
def test_sam_needs_a_rho_above_zero(rho):
    with pytest.raises(InputError, match=r"optimizer\.rho"):
        with_sam(rho)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({"name": "constant"}, [1, 1, 1, 1]),
        ({"name": "constant", "warmup": 1}, [1, 1, 1, 1]),
        ({"name": "constant", "warmup": 3}, [1 / 3, 2 / 3, 1, 1]),
        ({"name": "cosine"}, [(1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]),
        ({"name": "cosine", "epochs": 10}, [(1 + math.cos(math.pi * e / 10)) / 2 for e in range(4)]),
        ({"name": "cosine", "final": 0.02}, [0.2 + 0.8 * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]),
        ({"name": "cosine", "warmup": 1}, [1, *((1 + math.cos(math.pi * e / 3)) / 2 for e in range(3))]),
        ({"name": "cosine", "warmup": 2, "epochs": 6}, [0.5, 1, 1, (1 + math.cos(math.pi / 4)) / 2]),
        ({"name": "step", "step_size": 2, "gamma": 0.1}, [1, 1, 0.1, 0.1]),
        ({"name": "multistep", "milestones": [1, 3], "gamma": 0.1}, [1, 0.1, 0.1, 0.01]),
        ({"name": "exponential", "gamma": 0.5}, [1, 0.5, 0.25, 0.125]),
    ],
)
def test_schedules_match_their_formulas(schedule, rates):
    _, history = train(configuration(schedule=schedule))
    assert [row["learning_rate"] for row in history] == pytest.approx([0.1 * rate for rate in rates])
