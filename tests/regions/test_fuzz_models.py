"""Random classifiers are counted right by every method, or refused; benchmarks/fuzz_models.py does this for thousands."""

import pytest
from fuzz_cases import make_case
from fuzz_checks import check

CASES = 100


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seeds", [range(start, start + 10) for start in range(0, CASES, 10)], ids=str)
def test_random_classifiers_are_counted_right_or_refused(seeds):
    failures = [
        (seed, case.kind, outcome)
        for seed in seeds
        for case in [make_case(seed)]
        for outcome in check(case, seed, traced=seed % 10 == 0, resolution=20, triangle_resolution=5)
        if outcome.result == "failure"
    ]
    assert not failures
