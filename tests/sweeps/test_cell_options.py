"""Options of the command line that exist only for a choice that the grid of a sweep makes."""

import pytest
from command_line import run_command
from grids import make_plan

import regioncount as rc
from regioncount.errors import InputError

TINY = ["dataset.train_size=60", "dataset.test_size=100", "epochs=3", "batch_size=32", "precision=float32"]
GROWING = ["experiment=beyond/growing_batches", "dataset=digits", "seed=0", "batch_size=32", "model=mlp"]


@pytest.mark.parametrize(
    "given", ["schedule.step_size=1", "schedule.gamma=0.5", "schedule.step_size=1,2", "schedule.gamma=0.5,0.1"]
)
def test_an_option_replaces_that_of_the_grid_of_an_experiment(given):
    """The schedule of the experiment itself, cosine, has neither option."""
    option, values = given.split("=")
    name = option.removeprefix("schedule.")
    plan = make_plan([*GROWING, *TINY[:3], "optimizer.learning_rate=0.1", given])
    trained = [(run.config.schedule["name"], run.config.schedule[name]) for run in plan.runs]
    assert trained == [(kind, float(value)) for kind in ("step", "growing_batch") for value in values.split(",")]
    other = {"step_size": ("gamma", 0.2), "gamma": ("step_size", 60)}[name]
    assert {run.config.schedule[other[0]] for run in plan.runs} == {other[1]}
    assert given in plan.overrides
    assert not any("cell_options" in override for override in plan.overrides)


@pytest.mark.parametrize(
    ("grid", "option", "group"),
    [
        ("schedule=step,growing_batch", "schedule.step_size=2", "schedule"),
        ("schedule=choice(multistep)", "schedule.milestones=[1,2]", "schedule"),
        ("optimizer=sam,sgd", "optimizer.momentum=0.5", "optimizer"),
        ("optimizer=adam,adamw", "optimizer.betas=[0.5,0.9]", "optimizer"),
        ("model=resnet18,resnet34", "model.stem='imagenet'", "model"),
        ("model=mlp,vision_transformer", "model.depth=${epochs}", "model"),
        ("dataset=digits,two_points", "dataset.title=mine", "dataset"),
    ],
)
def test_an_option_of_the_choices_of_a_grid_is_the_same_as_one_forced_on_every_cell(grid, option, group):
    options = [*TINY[2:], "seed=0,1", *(["model=mlp"] if group != "model" else []), grid]
    plan, forced = (make_plan([*options, prefix + option]) for prefix in ("", "++"))
    assert [run.config for run in plan.runs] == [run.config for run in forced.runs]
    assert [run.identity for run in plan.runs] == [run.identity for run in forced.runs]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["schedule=step,growing_batch", "schedule.stpe_size=2"],
            "schedule.stpe_size: no such option; did you mean schedule.step_size?",
        ),
        (
            ["schedule=step,growing_batch", "schedule.stpe_size=2,3"],
            "schedule.stpe_size: no such option; did you mean schedule.step_size?",
        ),
        (
            ["schedule=step,cosine", "schedule.step_size=2"],
            "the options of schedule are epochs, warmup, final (in the cell schedule=cosine)",
        ),
        (
            ["optimizer=sam,adam", "optimizer.rho=0.1"],
            "the options of optimizer are learning_rate, weight_decay, betas (in the cell optimizer=adam)",
        ),
        (
            ["model=resnet18,vgg19", "model.stem=imagenet"],
            "model.stem: no such option; the options of model are width (in the cell model=vgg19)",
        ),
        (["seed=0,1", "schedule.step_size=2"], "the options of schedule are epochs, warmup, final"),
        (["schedule=step,growing_batch", "schedule.step_size=0"], "schedule.step_size=0: must be at least 1"),
        (
            ["schedule=step,growing_batch", "tracker.group=mine"],
            "tracker.group=mine: a sweep groups its runs by its own name",
        ),
    ],
)
def test_an_option_that_a_cell_lacks_is_refused(options, message, tmp_path):
    with pytest.raises(InputError) as caught:
        make_plan([*TINY, *options, f"results={tmp_path / 'results'}"])
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["schedule.stpe_size=10", "schedule.stpe_size=10,15"])
def test_a_misspelled_option_is_one_line_with_exit_status_2(given, tmp_path):
    refused = run_command("sweep.py", *GROWING, *TINY[:3], given, f"results={tmp_path / 'results'}")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith("sweep.py: schedule.stpe_size: no such option; did you mean schedule.step_size?")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_trains_with_the_option_and_finds_its_runs_again(tmp_path):
    options = [
        *TINY,
        "model=mlp",
        "model.width=4",
        "schedule=step,growing_batch",
        "schedule.step_size=1",
        "schedule.gamma=0.5",
    ]
    options += ["regions.line.number=2", "regions.line.resolution=5", f"results={tmp_path}"]
    runs = rc.sweep(options)
    assert [run.values["schedule"] for run in runs] == ["step", "growing_batch"]
    assert [run.values["step_size"] for run in runs] == [1, 1]
    again = run_command("sweep.py", *options)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("(already complete)") == 2
