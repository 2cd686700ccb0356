"""Runs on disk: identity, what is kept, what is done again and what is not."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import regioncount as rc
from regioncount.config import parse_measuring, parse_run
from regioncount.models.networks import build_for
from regioncount.reporting import tracking
from regioncount.runs import describe, loading, measuring, runner, store, weights
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


def test_a_finished_run_is_found_and_nothing_is_computed_twice(tmp_path, monkeypatch):
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
def test_what_makes_the_model_makes_the_identity(tmp_path, change):
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
def test_what_does_not_make_the_model_does_not(tmp_path, change):
    assert runner.prepare(configuration(tmp_path)).identity == runner.prepare(configuration(tmp_path, **change)).identity


def test_asking_for_more_measures_only_measures_more(tmp_path, monkeypatch):
    config = configuration(tmp_path)
    before = runner.run_or_resume(runner.prepare(config))
    old = measured_values(before, config, loading.load_dataset(config.dataset))
    forbid(monkeypatch, (runner, "train"))
    plane = {"plane": {"kind": "simplex", "dimension": 2, "number": 5, "resolution": 6, "split": "test"}}
    more = configuration(tmp_path, regions={**LINE, **plane})
    found = runner.run_or_resume(runner.prepare(more))
    row = measured_values(found, more, loading.load_dataset(config.dataset))
    assert old.items() <= row.items()
    assert row["region_count_plane"] >= 1
    other_seed = configuration(tmp_path, regions={"seed": 9, **LINE})
    unmeasured = measured_values(found, other_seed, loading.load_dataset(config.dataset))
    assert unmeasured.keys() == {key for key in old if "region" not in key}


def test_values_on_disk_are_what_counting_by_hand_gives(tmp_path):
    config = configuration(tmp_path)
    job = runner.prepare(config)
    found = rc.runs.load(runner.run_or_resume(job).directory)
    model = build_for(config.model, job.dataset)
    model.load_state_dict(found.weights())
    images = job.dataset.normalize(job.dataset.train.images)
    lines = rc.sample_simplices(images, 1, 12, torch.Generator().manual_seed(0))
    expected = rc.count_regions(model, lines, resolution=30)
    row = measured_values(found, config, job.dataset)
    assert row["region_count_line"] == expected.mean
    assert row["region_count_line_standard_error"] == pytest.approx(expected.standard_error)
    key = measurement_key(measurement_settings(config, job.dataset)["line"], found.epochs_trained)
    assert np.array_equal(found.region_arrays()[f"{key}/counts"], expected.counts)
    with torch.no_grad():
        right = model.eval()(job.dataset.normalize(job.dataset.test.images)).argmax(1) == job.dataset.test.labels
    assert row["test_accuracy"] == right.double().mean().item()


def test_snapshots_are_measured_and_then_removed_unless_kept(tmp_path):
    config = configuration(tmp_path, snapshots={"every": 2, "epochs": [3]})
    job = runner.prepare(config)
    found = runner.run_or_resume(job)
    assert snapshot_epochs(config, found.epochs_trained) == [0, 2, 3, 4, 6]
    assert found.snapshot_epochs() == []
    assert found.has_weights(0)
    assert found.has_weights(6)
    counts = [measured_values(found, config, job.dataset, epoch)["region_count_line"] for epoch in (0, 2, 3, 4, 6)]
    assert len(counts) == 5
    kept = runner.run_or_resume(runner.prepare(configuration(tmp_path, snapshots={"every": 2, "epochs": [3], "keep": True})))
    assert kept.snapshot_epochs() == [2, 3, 4]  # they were asked for, so the run was trained again
    again = [measured_values(kept, config, job.dataset, epoch)["region_count_line"] for epoch in (0, 2, 3, 4, 6)]
    assert again == counts
    assert kept.record["checksums"]["model.pt"] == found.record["checksums"]["model.pt"]


@pytest.mark.parametrize("epoch", [1, 3, 4, 6])
def test_a_run_that_broke_off_is_measured_like_an_unbroken_one(tmp_path, monkeypatch, epoch):
    """Its snapshots and initial weights from before the break are believed, and measured."""
    asked = {"snapshots": {"every": 2, "keep": True}}
    config = configuration(tmp_path / "unbroken", **asked)
    unbroken = runner.run_or_resume(runner.prepare(config))
    job = runner.prepare(configuration(tmp_path / "broken", **asked))
    with monkeypatch.context() as patch:
        log = tracking.Tracker.log

        def break_off(track, metrics, step):
            log(track, metrics, step)
            if step == epoch:
                raise KeyboardInterrupt

        patch.setattr(tracking.Tracker, "log", break_off)
        with pytest.raises(KeyboardInterrupt):
            runner.run_or_resume(job)
    assert job.find_run() is None
    assert store.unfinished_names(tmp_path / "broken") == {f"{job.name}-{job.identity}"}
    retrained = runner.run_or_resume(job)
    assert retrained.record["checksums"]["model.pt"] == unbroken.record["checksums"]["model.pt"]
    for at in (0, 2, 4, 6):
        assert measured_values(retrained, config, job.dataset, at) == measured_values(unbroken, config, job.dataset, at)


def test_a_diverged_run_is_recorded_and_not_measured(tmp_path):
    optimizer = {"name": "sgd", "learning_rate": 1e12, "weight_decay": 0.0, "momentum": 0.9}
    for snapshots in ({}, {"every": 1}):
        config = configuration(tmp_path, optimizer=optimizer, snapshots=snapshots)
        job = runner.prepare(config)
        found = runner.run_or_resume(job)
        assert found.status == "diverged"
        assert measured_values(found, config, job.dataset) == {}
        assert runner.run_or_resume(job).record == found.record


def test_a_single_subspace_has_no_standard_error_and_that_can_be_said(tmp_path):
    config = configuration(tmp_path, regions={"line": {**LINE["line"], "number": 1}})
    job = runner.prepare(config)
    found = runner.run_or_resume(job)
    for run in (found, store.load(found.directory)):
        assert np.isnan(measured_values(run, config, job.dataset)["region_count_line_standard_error"])
        assert "± nan" in describe.describe(run, config, job.dataset, [6])


def test_measuring_a_file_of_weights_equals_measuring_its_run(tmp_path):
    config = configuration(tmp_path, regions={**LINE})
    job = runner.prepare(config)
    found = runner.run_or_resume(job)
    dataset = {"name": "digits", "train_size": 60, "test_size": 100}
    asked = {"dataset": dataset, "model": config.model, "regions": LINE, "measures": ["accuracy"], "results": str(tmp_path)}
    asked_for = parse_measuring({"checkpoint": str(found.directory / "model.pt"), **asked})
    imported, data = measuring.open_for_measuring(asked_for)
    assert measuring.measure_epochs(imported, asked_for, data, torch.device("cpu")) == [0]
    assert measured_values(imported, asked_for, data) == pytest.approx(measured_values(found, config, job.dataset))


def test_a_run_on_other_data_than_it_was_trained_on_is_refused(tmp_path):
    found = runner.run_or_resume(runner.prepare(configuration(tmp_path)))
    asked_for = parse_measuring({"run": str(found.directory), "measures": ["accuracy"]})
    with pytest.raises(rc.InputError, match="trained on different data"):
        measuring.open_for_measuring(asked_for, ["dataset.seed=7"])


@pytest.mark.parametrize("content", [None, b'{"format": 1', b"[]", b'{"format": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_directory_that_is_not_a_run_is_named(tmp_path, content):
    directory = runner.run_or_resume(runner.prepare(configuration(tmp_path))).directory
    (directory / "run.json").unlink()
    if content is not None:
        (directory / "run.json").write_bytes(content)
    with pytest.raises(rc.InputError, match=directory.name) as caught:
        store.load(directory)
    assert "\n" not in str(caught.value)


def test_weights_that_changed_on_disk_are_not_believed(tmp_path):
    found = runner.run_or_resume(runner.prepare(configuration(tmp_path)))
    path = found.directory / "model.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(rc.InputError, match="checksum"):
        found.weights()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not a file of weights"])
def test_a_truncated_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(rc.InputError, match=r"weights\.pt"):
        weights.load_weights(path)


def test_pickled_code_in_weights_is_not_run(tmp_path):
    class Mischief:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"weight": Mischief()}, tmp_path / "weights.pt")
    with pytest.raises(rc.InputError, match=r"weights\.pt"):
        weights.load_weights(tmp_path / "weights.pt")
    assert not (tmp_path / "touched").exists()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_ends_with_the_weights_of_an_unbroken_one(tmp_path):
    options = ["model=mlp", "epochs=120", "dataset.train_size=300", "batch_size=8", "precision=float32", "measures=[]"]

    def command(results):
        return [sys.executable, str(REPOSITORY / "train.py"), f"results={results}", *options]

    subprocess.run(command(tmp_path / "unbroken"), check=True, capture_output=True)
    (unbroken,) = (tmp_path / "unbroken" / "runs").glob("*/model.pt")

    def epochs():
        histories = [path.read_text() for path in (tmp_path / "broken").glob("unfinished/*/history.csv")]
        return histories[0].count("\n") if histories else 0

    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        before = epochs()
        process = subprocess.Popen(
            command(tmp_path / "broken"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's & ignores
        )
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            if epochs() > before + 5:
                break
            time.sleep(0.005)
        process.send_signal(number)
        _, said = process.communicate()
        assert process.returncode == status
        assert said.count("\n") == said.count("Rerun the same command to resume") == (number != signal.SIGKILL)
    subprocess.run(command(tmp_path / "broken"), check=True, capture_output=True)
    (broken,) = (tmp_path / "broken" / "runs").glob("*/model.pt")
    one, other = (torch.load(path, weights_only=True) for path in (unbroken, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_work_of_a_run_is_its_models_multiply_adds(tmp_path):
    job = runner.prepare(configuration(tmp_path, model={"name": "mlp", "width": 12, "depth": 1}))
    assert loading.check(job.config, job.dataset) == 64 * 12 + 12 * 10


def test_compilation_is_part_of_what_makes_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    found = {asked: runner.prepare(configuration(tmp_path, compile=asked)) for asked in ("auto", False, True)}
    assert [job.compiled for job in found.values()] == [False, False, True]  # so little work is not worth it
    assert found["auto"].identity == found[False].identity != found[True].identity
    with pytest.raises(rc.InputError, match="compile=maybe"):
        configuration(tmp_path, compile="maybe")


def test_measures_are_shown_and_those_that_are_undefined_say_why(tmp_path):
    config = configuration(tmp_path, measures=["accuracy", "parameter_norm", "epochs_to_fit"], epochs=1)
    job = runner.prepare(config)
    found = runner.run_or_resume(job)
    shown = describe.describe(found, config, job.dataset, [1]).splitlines()
    vector = torch.cat([value.flatten() for value in found.weights().values()])
    assert f"parameter_norm {vector.norm():.5g}" in [" ".join(line.split()) for line in shown]
    assert shown[-1].startswith("epochs_to_fit: no epoch reached a training accuracy")
