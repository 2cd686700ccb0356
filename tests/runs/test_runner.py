"""Runs: identities, what is stored, and what is recomputed or reused."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import start_command

import regioncount as rc
from regioncount.composition import compose, hydra_ready
from regioncount.config import parse_measuring, parse_run
from regioncount.models.networks import build_for
from regioncount.runs import describe, loading, measuring, runner, store, trackers
from regioncount.runs.checkpoints import load_checkpoint
from regioncount.runs.identity import measurement_key
from regioncount.runs.measurements import measured_values, measurement_settings, snapshot_epochs

REPOSITORY = Path(__file__).resolve().parents[2]
LINE = {"line": {"kind": "simplex", "dimension": 1, "number": 12, "resolution": 30}}


def configuration(results, **changes):
    plain = {
        "dataset": {"name": "digits", "train_size": 60, "test_size": 100},
        "model": {"name": "mlp", "width": 16, "depth": 1},
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "weight_decay": 0.0, "momentum": 0.9},
        "schedule": {"name": "constant"},
        "batch_size": 16,
        "epochs": 6,
        "regions": LINE,
        "measures": ["accuracy"],
        "precision": "float32",
        "results": str(results),
    }
    return parse_run({**plain, **changes})


def forbid(monkeypatch, *names):
    for module, name in names:
        monkeypatch.setattr(module, name, lambda *a, name=name, **k: pytest.fail(f"{name} was called again"))


def test_a_finished_run_is_reused_without_computation(tmp_path, monkeypatch):
    first = runner.run_or_resume(runner.prepare(configuration(tmp_path)))
    assert first.status == "finished"
    forbid(monkeypatch, (runner, "train"), (measuring, "_measure_one"))
    again = runner.run_or_resume(runner.prepare(configuration(tmp_path)))
    assert again.record == first.record


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"batch_size": 8},
        {"epochs": 5},
        {"augmentation": "crop_flip"},
        {"schedule": {"name": "cosine"}},
        {"stop": {"train_accuracy": 0.9}},
        {"precision": "bfloat16"},
        {"model": {"name": "mlp", "width": 17, "depth": 1}},
        {"optimizer": {"name": "sgd", "learning_rate": 0.2, "weight_decay": 0.0, "momentum": 0.9}},
        {"dataset": {"name": "digits", "train_size": 60, "test_size": 100, "seed": 1}},
        {"dataset": {"name": "digits", "train_size": 60, "test_size": 100, "label_noise": 0.2}},
    ],
)
def test_options_that_change_the_model_change_the_identity(tmp_path, change):
    assert runner.prepare(configuration(tmp_path)).identity != runner.prepare(configuration(tmp_path, **change)).identity


@pytest.mark.parametrize(
    "change",
    [
        {"regions": {"seed": 3, **LINE}},
        {"regions": {}},
        {"measures": []},
        {"snapshots": {"every": 2}},
        {"device": "cpu"},
        {"tracker": {"mode": "wandb_offline"}},
        {"dataset": {"name": "digits", "train_size": 60, "test_size": 50}},
        {"optimizer": {"name": "sgd", "learning_rate": 0.1, "weight_decay": 0, "momentum": 0.9}},
    ],
)
def test_other_options_do_not_change_the_identity(tmp_path, change):
    assert runner.prepare(configuration(tmp_path)).identity == runner.prepare(configuration(tmp_path, **change)).identity


def test_only_missing_measurements_are_computed(tmp_path, monkeypatch):
    config = configuration(tmp_path)
    before = runner.run_or_resume(runner.prepare(config))
    old = measured_values(before, config, loading.load_dataset(config.dataset))
    forbid(monkeypatch, (runner, "train"))
    plane = {"plane": {"kind": "simplex", "dimension": 2, "number": 5, "resolution": 6, "split": "test"}}
    more = configuration(tmp_path, regions={**LINE, **plane})
    run = runner.run_or_resume(runner.prepare(more))
    row = measured_values(run, more, loading.load_dataset(config.dataset))
    assert old.items() <= row.items()
    assert row["region_count_plane"] >= 1
    other_seed = configuration(tmp_path, regions={"seed": 9, **LINE})
    unmeasured = measured_values(run, other_seed, loading.load_dataset(config.dataset))
    assert unmeasured.keys() == {key for key in old if "region" not in key}


def test_values_on_disk_equal_those_of_the_library(tmp_path):
    config = configuration(tmp_path)
    prepared = runner.prepare(config)
    run = rc.runs.load(runner.run_or_resume(prepared).directory)
    model = build_for(config.model, prepared.dataset)
    model.load_state_dict(run.weights())
    images = prepared.dataset.normalize(prepared.dataset.train.images)
    lines = rc.sample_simplices(images, 1, 12, torch.Generator().manual_seed(0))
    expected = rc.count_regions(model, lines, resolution=30)
    row = measured_values(run, config, prepared.dataset)
    assert row["region_count_line"] == expected.mean
    assert row["region_count_line_standard_error"] == pytest.approx(expected.standard_error)
    key = measurement_key(measurement_settings(config, prepared.dataset)["line"], run.epochs_trained)
    assert np.array_equal(run.region_arrays()[f"{key}/counts"], expected.counts)
    with torch.no_grad():
        predicted = model.eval()(prepared.dataset.normalize(prepared.dataset.test.images)).argmax(1)
    assert row["test_accuracy"] == (predicted == prepared.dataset.test.labels).double().mean().item()


def test_snapshots_are_measured_and_then_removed_unless_kept(tmp_path):
    config = configuration(tmp_path, snapshots={"every": 2, "epochs": [3]})
    prepared = runner.prepare(config)
    run = runner.run_or_resume(prepared)
    assert snapshot_epochs(config, run.epochs_trained) == [0, 2, 3, 4, 6]
    assert run.snapshot_epochs() == []
    assert run.has_weights(0)
    assert run.has_weights(6)
    counts = [measured_values(run, config, prepared.dataset, epoch)["region_count_line"] for epoch in (0, 2, 3, 4, 6)]
    assert len(counts) == 5
    kept = runner.run_or_resume(runner.prepare(configuration(tmp_path, snapshots={"every": 2, "epochs": [3], "keep": True})))
    assert kept.snapshot_epochs() == [2, 3, 4]  # these were missing, so the run was trained again
    again = [measured_values(kept, config, prepared.dataset, epoch)["region_count_line"] for epoch in (0, 2, 3, 4, 6)]
    assert again == counts
    assert kept.record["checksums"]["model.pt"] == run.record["checksums"]["model.pt"]


@pytest.mark.parametrize("epoch", [1, 3, 4, 6])
def test_an_interrupted_run_has_the_measurements_of_an_uninterrupted_one(tmp_path, monkeypatch, epoch):
    """The snapshots and initial weights from before the interruption are reused."""
    snapshots = {"every": 2, "keep": True}
    config = configuration(tmp_path / "unbroken", snapshots=snapshots)
    unbroken = runner.run_or_resume(runner.prepare(config))
    prepared = runner.prepare(configuration(tmp_path / "broken", snapshots=snapshots))
    with monkeypatch.context() as patch:
        log = trackers.Tracker.log

        def interrupt(tracker, metrics, step):
            log(tracker, metrics, step)
            if step == epoch:
                raise KeyboardInterrupt

        patch.setattr(trackers.Tracker, "log", interrupt)
        with pytest.raises(KeyboardInterrupt):
            runner.run_or_resume(prepared)
    assert prepared.find_run() is None
    assert store.unfinished_names(tmp_path / "broken") == {f"{prepared.name}-{prepared.identity}"}
    retrained = runner.run_or_resume(prepared)
    assert retrained.record["checksums"]["model.pt"] == unbroken.record["checksums"]["model.pt"]
    for at in (0, 2, 4, 6):
        expected = measured_values(unbroken, config, prepared.dataset, at)
        assert measured_values(retrained, config, prepared.dataset, at) == expected


def test_a_diverged_run_is_recorded_and_not_measured(tmp_path):
    optimizer = {"name": "sgd", "learning_rate": 1e12, "weight_decay": 0.0, "momentum": 0.9}
    for snapshots in ({}, {"every": 1}):
        config = configuration(tmp_path, optimizer=optimizer, snapshots=snapshots)
        prepared = runner.prepare(config)
        run = runner.run_or_resume(prepared)
        assert run.status == "diverged"
        assert measured_values(run, config, prepared.dataset) == {}
        assert runner.run_or_resume(prepared).record == run.record


def test_the_standard_error_of_a_single_subspace_is_nan(tmp_path):
    config = configuration(tmp_path, regions={"line": {**LINE["line"], "number": 1}})
    prepared = runner.prepare(config)
    run = runner.run_or_resume(prepared)
    for copy in (run, store.load(run.directory)):
        assert np.isnan(measured_values(copy, config, prepared.dataset)["region_count_line_standard_error"])
        assert "± nan" in describe.describe(copy, config, prepared.dataset, [6])


def test_measuring_a_file_of_weights_equals_measuring_its_run(tmp_path):
    config = configuration(tmp_path, regions={**LINE})
    prepared = runner.prepare(config)
    run = runner.run_or_resume(prepared)
    dataset = {"name": "digits", "train_size": 60, "test_size": 100}
    options = {"dataset": dataset, "model": config.model, "regions": LINE, "measures": ["accuracy"]}
    checkpoint = str(run.directory / "model.pt")
    measuring_config = parse_measuring({"checkpoint": checkpoint, "results": str(tmp_path), **options})
    imported, data = measuring.open_for_measuring(measuring_config)
    assert measuring.measure_epochs(imported, measuring_config, data, torch.device("cpu")) == [0]
    expected = measured_values(run, config, prepared.dataset)
    assert measured_values(imported, measuring_config, data) == pytest.approx(expected)


def test_the_variance_over_the_runs_own_minibatches_is_found_again(tmp_path, monkeypatch):
    config = configuration(tmp_path, measures=["accuracy", "minibatch_gradient_variance"])
    prepared = runner.prepare(config)
    run = runner.run_or_resume(prepared)
    row = measured_values(run, config, prepared.dataset)
    assert row["minibatch_gradient_variance"] > 0
    measuring_config = parse_measuring({"run": str(run.directory), "measures": ["minibatch_gradient_variance"]})
    again, dataset = measuring.open_for_measuring(measuring_config)
    forbid(monkeypatch, (measuring, "_measure_one"))
    measuring.measure_epochs(again, measuring_config, dataset, torch.device("cpu"))
    assert (
        measured_values(again, measuring_config, dataset)["minibatch_gradient_variance"]
        == row["minibatch_gradient_variance"]
    )


def test_measuring_a_run_on_different_data_is_refused(tmp_path):
    run = runner.run_or_resume(runner.prepare(configuration(tmp_path)))
    measuring_config = parse_measuring({"run": str(run.directory), "measures": ["accuracy"]})
    with pytest.raises(rc.InputError, match="trained on different data"):
        measuring.open_for_measuring(measuring_config, ["dataset.seed=7"])


@pytest.mark.parametrize("content", [None, b'{"format": 1', b"[]", b'{"format": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_directory_that_is_not_a_run_raises_an_error_with_its_name(tmp_path, content):
    directory = runner.run_or_resume(runner.prepare(configuration(tmp_path))).directory
    (directory / "run.json").unlink()
    if content is not None:
        (directory / "run.json").write_bytes(content)
    with pytest.raises(rc.InputError, match=directory.name) as caught:
        store.load(directory)
    assert "\n" not in str(caught.value)


def test_weights_that_changed_on_disk_are_refused(tmp_path):
    run = runner.run_or_resume(runner.prepare(configuration(tmp_path)))
    path = run.directory / "model.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(rc.InputError, match="checksum"):
        run.weights()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not a file of weights"])
def test_a_truncated_checkpoint_raises_an_error_with_its_name(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(rc.InputError, match=r"weights\.pt"):
        load_checkpoint(path, torch.nn.Linear(1, 1))


def test_pickled_code_in_weights_is_not_executed(tmp_path):
    class TouchesFile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"weight": TouchesFile()}, tmp_path / "weights.pt")
    with pytest.raises(rc.InputError, match=r"weights\.pt"):
        load_checkpoint(tmp_path / "weights.pt", torch.nn.Linear(1, 1))
    assert not (tmp_path / "touched").exists()


@pytest.mark.slow
def test_an_interrupted_run_resumes_and_gets_the_weights_of_an_uninterrupted_one(tmp_path):
    options = ["model=mlp", "epochs=200", "dataset.train_size=300", "batch_size=8", "precision=float32"]
    options += ["measures=[]", "regions=[]"]

    def finish(results):
        with hydra_ready():
            composed = compose("train", [f"results={results}", *options])
        return runner.run_or_resume(runner.prepare(parse_run(composed))).weights()

    uninterrupted = finish(tmp_path / "uninterrupted")

    def epochs():
        histories = list((tmp_path / "interrupted").glob("unfinished/*/history.csv"))
        try:
            return histories[0].read_text().count("\n") if histories else 0
        except FileNotFoundError:  # the next process has just renamed the directory
            return 0

    for number, status in (
        (signal.SIGKILL, -9),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGINT, 130),
    ):
        before = epochs()
        printed = [tmp_path / f"{name}-{number}" for name in ("stdout", "stderr")]
        process = start_command("train.py", f"results={tmp_path / 'interrupted'}", *options, printed=printed)
        deadline = time.monotonic() + 300
        while process.is_alive() and time.monotonic() < deadline:
            if epochs() > before:
                break
            time.sleep(0.005)
        os.kill(process.pid, number)
        process.join()
        messages = [line for line in printed[1].read_text().splitlines() if not line.startswith("epoch ")]
        assert process.exitcode == status
        assert len(messages) == (number != signal.SIGKILL)
        assert all("Rerun the same command to resume" in line for line in messages)
    resumed = finish(tmp_path / "interrupted")
    assert all(torch.equal(resumed[name], value) for name, value in uninterrupted.items())


def test_check_returns_the_multiply_adds(tmp_path):
    prepared = runner.prepare(configuration(tmp_path, model={"name": "mlp", "width": 12, "depth": 1}))
    assert loading.check(prepared.config, prepared.dataset) == 64 * 12 + 12 * 10


def test_compilation_changes_the_identity(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    by_option = {option: runner.prepare(configuration(tmp_path, compile=option)) for option in ("auto", False, True)}
    assert [prepared.compiled for prepared in by_option.values()] == [False, False, True]  # this run is too short to compile
    assert by_option["auto"].identity == by_option[False].identity != by_option[True].identity
    with pytest.raises(rc.InputError, match="compile=maybe"):
        configuration(tmp_path, compile="maybe")


def test_describe_shows_measures_and_why_they_are_undefined(tmp_path):
    config = configuration(tmp_path, measures=["accuracy", "parameter_norm", "epochs_to_fit"], epochs=1)
    prepared = runner.prepare(config)
    run = runner.run_or_resume(prepared)
    shown = describe.describe(run, config, prepared.dataset, [1]).splitlines()
    vector = torch.cat([value.flatten() for value in run.weights().values()])
    assert f"parameter_norm {vector.norm():.5g}" in [" ".join(line.split()) for line in shown]
    assert shown[-1].startswith("epochs_to_fit: no epoch reached a training accuracy")


@pytest.mark.parametrize(("batch_size", "refused"), [(59, True), (1, True), (16, False), (60, False)])
def test_a_batch_of_one_image_is_refused_before_training_if_it_cannot_be_normalized(tmp_path, batch_size, refused):
    """A norm over one value per channel: the images of a deep network shrink to one pixel."""
    model = {"name": "resnet18", "width": 2}
    config = configuration(tmp_path, model=model, batch_size=batch_size)
    if refused:
        with pytest.raises(rc.InputError, match=f"batch_size={batch_size}: .*more than 1 value per channel"):
            runner.prepare(config)
    else:
        runner.prepare(config)
    runner.prepare(configuration(tmp_path, batch_size=batch_size))  # a network without batch normalization
