"""Measure a finished run or a file of weights: python measure.py run=results/runs/NAME regions=[line,plane]

Prints the table, and draws the decision regions in a plane through three training images. Options are those of
configs/measure.yaml; `python measure.py --help` lists them.
"""

import sys

from regioncount.commands import compose, hydra_ready, run_command


def main(overrides: list[str]) -> None:
    from regioncount import training
    from regioncount.config import parse_measuring
    from regioncount.reporting import plots
    from regioncount.runs import describe, measuring

    # A run brings its own data set: options of it given here, such as dataset.root, change that one.
    of_a_run = any(override.startswith("run=") for override in overrides)
    changes = [override for override in overrides if of_a_run and override.startswith("dataset.")]
    with hydra_ready():
        composed = compose("measure", [override for override in overrides if override not in changes])
    config = parse_measuring(composed)
    device = training.choose_device(config.device)
    found, dataset = measuring.open_for_measuring(config, changes)

    epochs = measuring.measure_epochs(found, config, dataset, device)
    print(describe.describe(found, config, dataset, epochs))
    labels, positions = measuring.decision_regions(found, dataset, device, config.regions.seed)
    picture = found.directory / "decision_regions.png"
    plots.save(plots.decision_regions([labels], [dataset.name], dataset.classes, [positions]), picture)
    print(f"decision regions: {picture}")


if __name__ == "__main__":
    sys.exit(run_command("measure", main))
