"""Random classifiers are counted and measured right, or refused; benchmarks/fuzz_models.py does this for thousands."""

import pytest
from fuzz_cases import make_case
from fuzz_checks import check
from fuzz_measures import check_measures

CASES = 100


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", range(0, CASES, 10))
def test_random_classifiers_are_counted_and_measured_right_or_refused(start):
    failures = []
    for seed in range(start, start + 10):
        case = make_case(seed)
        outcomes = check(case, seed, traced=seed % 50 == 0, resolution=12, triangle_resolution=4, number=1)
        outcomes += check_measures(case, seed) if seed % 20 == 1 else []
        failures += [(seed, case.kind, outcome) for outcome in outcomes if outcome.result == "failure"]
    assert not failures
