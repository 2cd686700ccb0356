"""Train and measure a grid of runs, and correlate: python sweep.py experiment=quickstart

The grid is what the experiment's hydra.sweeper.params name, or lists on the command line such as
optimizer.learning_rate=0.1,0.01 batch_size=64,256 seed=0,1,2. Running the same sweep again does only what is missing.
Options are those of configs/train.yaml and configs/sweep.yaml.
"""

import sys

from regioncount.commands import run_command


def main(overrides: list[str]) -> int:
    from regioncount.reporting import report
    from regioncount.sweeps import sweeping

    plan = sweeping.make_plan(overrides)
    print(f"sweep {plan.name}: {len(plan.runs)} runs, in {plan.directory}", flush=True)
    stopped = sweeping.launch(plan, overrides)
    return max(stopped, report.report(plan.directory, after_sweep=True))


if __name__ == "__main__":
    sys.exit(run_command("sweep", main))
