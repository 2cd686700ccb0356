"""Every recipe of CONTRIBUTING.md, followed as a user would: files in a new folder, a sweep, and its report."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from command_line import run_command

REPOSITORY = Path(__file__).resolve().parent.parent
TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text()
RECIPES = {title.strip(): body for title, body in re.findall(r"^### (.+?)\n(.*?)(?=^##+ |\Z)", TEXT, flags=re.M | re.S)}
TINY = ["dataset.train_size=60", "dataset.test_size=100", "epochs=2", "precision=float32", "device=cpu"]
TINY += ["regions.line.number=10", "regions.line.resolution=20"]

# A check of the table of runs and the results directory of each recipe's sweep.
CHECKS = {
    "A measure": lambda runs, results: runs["largest_weight"].gt(0).all(),
    "A network": lambda runs, results: set(runs["width"]) == {8, 16, 32} and set(runs["model"]) == {"wide_perceptron"},
    "A data set": lambda runs, results: set(runs["num_classes"]) == {2},
    "An optimizer": lambda runs, results: set(runs["learning_rate"]) == {0.01, 0.003, 0.001},
    "An augmentation": lambda runs, results: set(runs["learning_rate"]) == {0.1, 0.05, 0.01},
    "A subspace": lambda runs, results: (runs["region_count_halved_segment"] <= runs["region_count_line"]).all(),
    "A tracker": lambda runs, results: len(list(results.glob("*.log"))) == 3,
    "An experiment": lambda runs, results: set(runs["width"]) == {4, 8, 16},
}


def files_of(recipe):
    return re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```", recipe, flags=re.M | re.S)


def command_of(recipe):
    (line,) = re.findall(r"^```bash\npython sweep\.py (.*?)\n```", recipe, flags=re.M | re.S)
    return shlex.split(line)


def test_every_recipe_is_checked():
    assert set(RECIPES) == set(CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_a_recipe_trains_measures_and_reports(tmp_path, name):
    for path, content in files_of(RECIPES[name]):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    command = command_of(RECIPES[name])
    model = [] if any(option.startswith(("model=", "experiment=")) for option in command) else ["model=mlp"]
    sweep = run_command("sweep.py", *command, *model, *TINY, directory=tmp_path)
    assert sweep.returncode == 0, sweep.stderr
    (table,) = tmp_path.glob("results/sweeps/*/runs.csv")
    runs = pd.read_csv(table)
    assert len(runs) == 3
    assert set(runs["status"]) == {"finished"}
    assert CHECKS[name](runs, tmp_path / "results")
    assert (table.parent / "report.html").is_file()

    # A report needs no plugin and writes the same table.
    before = table.read_bytes()
    report = run_command("regioncount.report", str(table.parent.relative_to(tmp_path)), directory=tmp_path)
    assert report.returncode == 0, report.stderr
    assert table.read_bytes() == before

    if name not in ("A network", "A data set"):
        return
    # Measuring the run needs the plugin that supplied the model or data set; the error names it.
    plugins = next(option for option in command if option.startswith("plugins="))
    options = [f"run={runs['directory'][0]}", "measures=[accuracy,parameter_norm]"]
    measured = run_command("measure.py", *options, plugins, directory=tmp_path)
    assert measured.returncode == 0, measured.stderr
    refused = run_command("measure.py", *options, directory=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert plugins in refused.stderr
