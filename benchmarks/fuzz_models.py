"""Count and measure random classifiers, and compare with slow references.

    python benchmarks/fuzz_models.py --cases 3000 --seed 0
    python benchmarks/fuzz_models.py --only 17

A case is a random graph of operations or an awkward module (tests/regions/random_graphs.py, awkward_models.py). Each result
must equal its reference or be refused with InputError. Anything else is a failure, printed with its seed.
"""

import argparse
import re
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "regions")]

from fuzz_cases import make_case  # noqa: E402
from fuzz_checks import Outcome, check  # noqa: E402
from fuzz_measures import check_measures  # noqa: E402

RESULTS = ("equal", "rounding", "documented", "refused", "no reference", "failure")


def print_table(title: str, rows: dict[str, Counter[str]]) -> None:
    print(f"\n| {title} | calls | {' | '.join(RESULTS)} |\n|---|{'---|' * (1 + len(RESULTS))}")
    for name, counter in sorted(rows.items()):
        print(f"| {name} | {counter.total()} | {' | '.join(str(counter[result]) for result in RESULTS)} |")


def group(reason: str) -> str:
    """Return a reason for a refusal without its details and numbers."""
    return re.sub(r"-?\d[\d.e-]*", "N", reason.split(";")[0].split(":")[0])[:110]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case")
    parser.add_argument("--only", type=int, help="seed of a single case, of which every outcome is printed")
    parser.add_argument(
        "--traced-every", type=int, default=4, help="one case in so many is also counted by the exact methods"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    seeds = range(arguments.seed, arguments.seed + arguments.cases) if arguments.only is None else [arguments.only]
    kinds: dict[str, Counter[str]] = {}
    calls: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    failed, start = [], time.perf_counter()
    for seed in seeds:
        case = make_case(seed)
        traced = arguments.only is not None or seed % arguments.traced_every == 0
        outcomes: list[Outcome] = check(case, seed, traced) + check_measures(case, seed)
        for outcome in outcomes:
            kinds.setdefault(case.kind, Counter())[outcome.result] += 1
            calls.setdefault(outcome.call, Counter())[outcome.result] += 1
            reasons[group(outcome.reason)] += outcome.result == "refused"
            if outcome.result == "failure" or arguments.only is not None:
                print(f"--only {seed}: {case.kind} {case.shape}: {outcome}", flush=True)
        failed += [seed] * any(outcome.result == "failure" for outcome in outcomes)
    print_table("kind", kinds)
    print_table("call", calls)
    print("\n| reason for a refusal | calls |\n|---|---|")
    for reason, number in (+reasons).most_common():
        print(f"| {reason} | {number} |")
    print(f"\n{len(seeds)} cases, {len(failed)} with failures, {time.perf_counter() - start:.0f} s")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
