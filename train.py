"""Train a model, and measure what is asked for: python train.py dataset=cifar10 model=resnet18 optimizer.learning_rate=0.1

Options are those of configs/train.yaml and of the groups it names; `python train.py --help` lists them.
"""

import sys

from regioncount.commands import compose, hydra_ready, run_command


def main(overrides: list[str]) -> None:
    with hydra_ready():
        composed = compose("train", overrides)

    from regioncount.config import parse_run
    from regioncount.runs import describe, runner

    job = runner.prepare(parse_run(composed))
    found = runner.run_or_resume(job)
    print(describe.describe(found, job.config, job.dataset, [found.epochs_trained]))


if __name__ == "__main__":
    sys.exit(run_command("train", main))
