"""Runs survive a kill at any step, damage to any file, and concurrent training by several processes."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_runner import configuration

import regioncount as rc
from regioncount.runs import files, runner, store, weights
from regioncount.runs.identity import measurement_key
from regioncount.runs.measurements import measured_values, measurement_settings, snapshot_epochs

IDENTITY = "0123456789abcdef"


class Killed(BaseException):
    """The simulated end of the process, which no `except Exception` catches."""


class Kill:
    """An audit hook that raises Killed at the n-th change that this process makes below a directory."""

    def __init__(self):
        self.directory, self.remaining = None, 0
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.directory is None:
            return
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        changes |= event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if changes and str(arguments[0]).startswith(self.directory):
            self.remaining -= 1
            if self.remaining < 0:
                raise Killed

    def arm(self, directory, change):
        self.directory, self.remaining = str(directory), change

    def disarm(self):
        self.directory = None


@pytest.fixture(scope="module")
def kill():
    hook = Kill()
    yield hook
    hook.disarm()


def measured(run, config, prepared):
    epochs = [*snapshot_epochs(config, run.epochs_trained), run.epochs_trained]
    return [measured_values(run, config, prepared.dataset, epoch) for epoch in epochs]


def leftovers(results):
    """Return all unfinished and damaged runs and files."""
    return [path for folder in ("unfinished", "damaged") for path in (results / folder).glob("*")]


OPTIONS = {"epochs": 2, "snapshots": {"every": 1}}


def killed_at_each_change(kill, tmp_path, configure):
    """Yield a configuration and its run, which was killed at the first change of the disk, at the second, and so on."""
    change = 0
    while True:
        results = tmp_path / f"killed-{change}"
        config = configure(results)
        prepared = runner.prepare(config)
        kill.arm(results, change)
        try:
            runner.run_or_resume(prepared)
        except Killed:
            pass
        else:
            break
        finally:
            kill.disarm()
        yield config, prepared
        shutil.rmtree(results)
        change += 1
    assert change > 20


def test_a_run_killed_at_any_change_of_the_disk_is_completed_correctly(tmp_path, kill):
    intact = configuration(tmp_path / "unbroken", **OPTIONS)
    unbroken = runner.run_or_resume(runner.prepare(intact))
    for config, prepared in killed_at_each_change(kill, tmp_path, lambda results: configuration(results, **OPTIONS)):
        run = runner.run_or_resume(prepared)
        assert run.record["checksums"]["model.pt"] == unbroken.record["checksums"]["model.pt"]
        assert measured(run, config, prepared) == measured(unbroken, intact, prepared)
        assert leftovers(prepared.results) == []


def test_a_finished_run_is_kept_until_its_retrained_replacement_is_complete(tmp_path, kill):
    plain = configuration(tmp_path / "plain", epochs=2)
    first = runner.run_or_resume(runner.prepare(plain))

    def configure(results):
        shutil.copytree(tmp_path / "plain", results)
        return configuration(results, epochs=2, snapshots={"every": 1, "keep": True})

    for _, prepared in killed_at_each_change(kill, tmp_path, configure):
        expected = measured_values(first, plain, prepared.dataset)
        survivor = prepared.find_run()  # None if killed between the two renames that replace it
        assert survivor is None or measured_values(survivor, plain, prepared.dataset) == expected
        run = runner.run_or_resume(prepared)
        assert run.snapshot_epochs() == [1]
        assert measured_values(run, plain, prepared.dataset) == expected
        assert leftovers(prepared.results) == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a results directory with one measured run."""
    results = tmp_path_factory.mktemp("finished")
    runner.run_or_resume(runner.prepare(configuration(results, **OPTIONS)))
    return results


FILES = ("run.json", "history.csv", "initial.pt", "model.pt", "measures.json", "regions.npz")


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_set_aside_and_recomputed(tmp_path_factory, finished, name, data):
    results = tmp_path_factory.mktemp("damaged") / "results"
    shutil.copytree(finished, results)
    config = configuration(results, **OPTIONS)
    prepared = runner.prepare(config)
    expected = measured(runner.prepare(configuration(finished, **OPTIONS)).find_run(), config, prepared)
    path = store.run_directory(results, prepared.name, prepared.identity) / name
    content = bytearray(path.read_bytes())
    match data.draw(st.sampled_from(["flipped", "cut", "empty", "other"])):
        case "flipped":
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            content = content[: data.draw(st.integers(0, len(content) - 1))]
        case "empty":
            content = b""
        case "other":
            content = data.draw(st.binary(max_size=100))
    path.write_bytes(content)
    try:  # some changes are harmless, such as a missing last line break or another date in an archive
        damaged = prepared.find_run()
        accepted = not damaged.damaged and damaged.region_arrays() is not None
    except files.Damaged:
        accepted = False

    rerun = prepared
    if name in ("model.pt", "initial.pt"):  # the weights are read only by a measurement that needs them
        rerun = runner.prepare(configuration(results, **OPTIONS, measures=["accuracy", "distance_from_initialization"]))
    run = runner.run_or_resume(rerun)
    assert measured(run, config, prepared) == expected
    assert run.measures.keys() >= {measurement_key(s, 2) for s in measurement_settings(config, prepared.dataset).values()}
    assert run.region_arrays().keys() == runner.prepare(configuration(finished, **OPTIONS)).find_run().region_arrays().keys()
    assert store.load(run.directory).damaged == {}
    assert run.weights().keys() == run.weights(0).keys()
    if not accepted:  # damaged weights are detected when they are read, and replaced by equal ones
        assert any(prepared.identity in aside.name for aside in (results / "damaged").iterdir())


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def change_the_state(change):
    """Return a function that changes the content of a checkpoint and gives it a valid checksum."""

    def damage(path):
        state = weights.load_tensors(files.unseal(path.read_bytes(), path), path)
        change(state)
        path.write_bytes(files.seal(weights.tensor_bytes(state)))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        change_the_state(lambda state: state.pop("history")),
        change_the_state(lambda state: state.update(history=3)),
        change_the_state(lambda state: state.update(history=[3])),
        change_the_state(lambda state: state["history"].pop(0)),
        change_the_state(lambda state: state["history"][-1].update(train_loss="0")),
        change_the_state(lambda state: state.pop("optimizer")),
        change_the_state(lambda state: state.update(optimizer=[])),
        change_the_state(lambda state: state["model"].popitem()),
        change_the_state(lambda state: state.update(model={0: torch.ones(1)})),
        change_the_state(lambda state: state.update({0: 1})),
    ],
)
def test_after_a_damaged_checkpoint_training_restarts(tmp_path, monkeypatch, capsys, damage):
    unbroken = runner.run_or_resume(runner.prepare(configuration(tmp_path / "unbroken")))
    prepared = runner.prepare(configuration(tmp_path / "broken"))
    with monkeypatch.context() as patch:
        patch.setattr(store.Run, "finish", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            runner.run_or_resume(prepared)
    (path,) = (tmp_path / "broken" / "unfinished").glob("*/checkpoint.pt")
    damage(path)
    run = runner.run_or_resume(prepared)
    assert "checkpoint.pt is" in (message := capsys.readouterr().err)
    assert len([line for line in message.splitlines() if not line.startswith("epoch ")]) == 1  # others show progress
    assert run.record["checksums"]["model.pt"] == unbroken.record["checksums"]["model.pt"]


def test_a_run_of_another_version_is_refused_and_unchanged(tmp_path):
    prepared = runner.prepare(configuration(tmp_path))
    directory = runner.run_or_resume(prepared).directory
    record = files.read_json(directory / "run.json")
    files.write_json(directory / "run.json", record | {"format": 99})
    with pytest.raises(rc.InputError, match="format 99"):
        runner.run_or_resume(prepared)
    assert files.read_json(directory / "run.json")["format"] == 99


def finish_training(run, value):
    run.save_weights(None, {"weight": torch.tensor([float(value)])})
    run.finish("finished", epochs_trained=0, seconds=1.0)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["begin", "train", "publish"])), max_size=24))
def test_concurrent_processes_without_locks_publish_one_result(tmp_path_factory, steps):
    """Four processes take steps in any order and train different models; the first one published is kept."""
    results = tmp_path_factory.mktemp("results")
    attempts, result = {}, None
    for process, step in steps:
        run = attempts.get(process)
        try:
            if step == "begin" and run is None and store.find(results, "a", IDENTITY) is None:
                attempts[process] = store.begin(results, "a", IDENTITY, {}, "data", {})
            elif step == "train" and run is not None and run.status == "running":
                finish_training(run, process)
            elif step == "publish" and run is not None and run.status != "running":
                store.publish(attempts.pop(process))
        except store.Superseded:
            attempts.pop(process, None)
        published = store.find(results, "a", IDENTITY)
        if result is None and published is not None:
            result = published.weights()["weight"].item()
        assert published is None or published.weights()["weight"].item() == result
        assert published is not None or result is None
    shutil.rmtree(results)


def test_a_directory_that_is_not_writable_is_refused(tmp_path, monkeypatch):
    files.require_writable(tmp_path / "new" / "below")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(rc.InputError, match=f"{tmp_path} is not writable"):
        files.require_writable(tmp_path / "new" / "below")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_a_history_is_read_as_it_was_written(losses):
    with tempfile.TemporaryDirectory() as directory:
        run = store.begin(Path(directory), "a", IDENTITY, {}, "data", {})
        run.save_history([{"epoch": epoch, "train_loss": loss} for epoch, loss in enumerate(losses, 1)])
        run.finish("finished", epochs_trained=len(losses), seconds=1.0)
        history = run.history()
    assert history["epoch"].tolist() == list(range(1, len(losses) + 1))
    assert history["train_loss"].tolist() == losses


def test_a_run_taken_over_by_another_process_cannot_be_written(tmp_path):
    first = store.begin(tmp_path, "a", IDENTITY, {}, "data", {})
    first.save_checkpoint({"epoch": 3})
    second = store.begin(tmp_path, "a", IDENTITY, {}, "data", {})
    assert second.checkpoint() == {"epoch": 3}
    for write in (first.save_record, lambda: first.save_checkpoint({}), lambda: first.save_history([{"epoch": 1}])):
        with pytest.raises(store.Superseded):
            write()
    finish_training(second, 2)
    store.publish(second)
    assert leftovers(tmp_path) == []


def test_a_file_system_without_locks_causes_a_warning(tmp_path, monkeypatch):
    def raise_no_locks(*arguments, **options):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(store.FileLock, "acquire", raise_no_locks)
    with pytest.warns(UserWarning, match="cannot be locked"):
        assert runner.run_or_resume(runner.prepare(configuration(tmp_path))).status == "finished"


def test_a_run_that_another_process_holds_is_busy(tmp_path):
    with store.lock(tmp_path / "runs" / "a"), pytest.raises(store.Busy), store.lock(tmp_path / "runs" / "a", wait=False):
        pytest.fail("the lock was acquired twice")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with store.lock(tmp_path / "runs" / "a", wait=False):
            pass


def test_a_run_is_read_without_torch(finished):
    program = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from regioncount.runs import environment, files, identity, plans, record, store
(directory,) = Path(sys.argv[1], "runs").glob("[!.]*")
run = store.find(Path(sys.argv[1]), *directory.name.rsplit("-", 1))
assert run.measures and len(run.history()) == 2 and run.region_arrays() and run.has_weights(0)
"""
    subprocess.run([sys.executable, "-c", program, str(finished)], check=True)


def test_links_in_a_run_are_not_followed(tmp_path, finished):
    secret = tmp_path / "secret.csv"
    (directory,) = (finished / "runs").glob("[!.]*")
    shutil.copytree(directory, tmp_path / "run")
    for name in ("history.csv", "model.pt", "run.json", "measures.json"):
        path = tmp_path / "run" / name
        content = path.read_bytes()
        secret.write_bytes(content)
        path.unlink()
        path.symlink_to(secret)
        if name == "measures.json":
            assert "link" in store.load(tmp_path / "run").damaged[name]
        else:
            with pytest.raises(files.Damaged, match="link"):
                store.load(tmp_path / "run").weights()
        path.unlink()
        path.write_bytes(content)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(files.Damaged, match="regular file"):
        files.read(tmp_path / "pipe")


def test_an_archive_larger_than_the_limit_is_refused(tmp_path, monkeypatch):
    content = files.array_bytes({"a": np.zeros(2**20)})
    monkeypatch.setattr(files, "ARRAY_LIMIT", 2**20)
    with pytest.raises(files.Damaged, match="a is larger than 1048576 bytes"):
        files.load_arrays(content, tmp_path / "regions.npz")


def test_an_array_larger_than_its_measurement_is_refused(tmp_path, finished):
    (directory,) = (finished / "runs").glob("[!.]*")
    shutil.copytree(directory, tmp_path / "run")
    run = store.load(tmp_path / "run")
    name = next(name for name in run.region_arrays() if name.endswith("/counts"))
    key = name.partition("/")[0]
    large = np.ones(10**6, np.int64)
    arrays = run.region_arrays() | {name: large, "unlisted/array": large}
    files.write(tmp_path / "run" / "regions.npz", files.array_bytes(arrays))
    run.measures[key]["arrays"]["counts"] = files.array_digest(large)
    with pytest.raises(files.Damaged, match=rf"{name} is larger than \d+ bytes"):
        run.region_arrays()
    del run.measures[key]
    assert "unlisted/array" not in run.region_arrays()


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_a_resumed_run_records_every_machine_and_version(tmp_path, monkeypatch):
    """Every machine trains one epoch."""
    first, second = {"date": "1", "device": "a", "torch": "2"}, {"date": "2", "device": "b", "torch": "2"}
    machines = [first, first | {"date": "1.5"}, second, first | {"date": "3"}]
    monkeypatch.setattr(runner, "CHECKPOINT_SHARE", 1e9)  # a checkpoint after every epoch
    save = store.Run.save_checkpoint

    def save_and_interrupt(run, state):
        save(run, state)
        raise KeyboardInterrupt

    prepared = runner.prepare(configuration(tmp_path, epochs=len(machines)))
    for machine in machines:
        monkeypatch.setattr(runner, "environment", lambda device, precision, machine=machine: dict(machine))
        with monkeypatch.context() as patch:
            if machine is not machines[-1]:
                patch.setattr(store.Run, "save_checkpoint", save_and_interrupt)
                with pytest.raises(KeyboardInterrupt):
                    runner.run_or_resume(prepared)
    run = runner.run_or_resume(prepared)
    recorded = [{**part} for part in store.load(run.directory).environments()]
    assert [{key: part[key] for key in first} for part in recorded] == machines[1:]


def test_a_machine_whose_checkpoint_is_not_used_is_not_recorded(tmp_path, monkeypatch):
    prepared = runner.prepare(configuration(tmp_path))
    monkeypatch.setattr(runner, "environment", lambda device, precision: {"device": "a"})
    with monkeypatch.context() as patch:
        patch.setattr(store.Run, "save_checkpoint", interrupt)
        with pytest.raises(KeyboardInterrupt):
            runner.run_or_resume(prepared)
    monkeypatch.setattr(runner, "environment", lambda device, precision: {"device": "b"})
    run = runner.run_or_resume(prepared)
    assert [part["device"] for part in run.environments()] == ["b"]


def test_a_failure_of_the_device_keeps_the_checkpoint(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError

    prepared = runner.prepare(configuration(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(store.Run, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            runner.run_or_resume(prepared)
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "load_state_dict", fail)
        with pytest.raises(torch.OutOfMemoryError):
            runner.run_or_resume(prepared)
    assert list((tmp_path / "unfinished").glob("*/checkpoint.pt"))
    assert not (tmp_path / "damaged").exists()


def test_a_run_on_one_machine_has_one_environment(finished):
    (directory,) = (finished / "runs").glob("[!.]*")
    run = store.load(directory)
    assert run.environments() == [run.record["environment"]]
    assert "earlier_environments" not in run.record


def test_a_full_disk_leaves_the_previous_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write(path, b"before")

    def raise_disk_full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", raise_disk_full)
    with pytest.raises(OSError, match="No space") as caught:
        files.write(path, b"after")
    assert caught.value.filename == str(path)
    assert [path] == list(tmp_path.iterdir())
    assert path.read_bytes() == b"before"


def test_threads_can_write_the_same_file(tmp_path):
    path, contents = tmp_path / "file", [bytes([number]) * 1000 for number in range(20)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda content: files.write(path, content), contents))
    assert path.read_bytes() in contents
    assert [path] == list(tmp_path.iterdir())


TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]))
MEMBERS = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXTS, st.lists, max_leaves=5)


@settings(max_examples=50, deadline=None)
@given(value=st.dictionaries(TEXTS, MEMBERS))
def test_json_round_trip_replaces_only_nan_and_infinity(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    value.pop("checksum", None)
    files.write_json(path, value)
    again = files.read_json(path)

    def without_nan(item):
        if isinstance(item, list):
            return [without_nan(part) for part in item]
        return None if isinstance(item, float) and not np.isfinite(item) else item

    assert again == {key: without_nan(item) for key, item in value.items()}


@pytest.mark.parametrize("path", ["/proc/results", "x" * 300, "file/results"])
def test_a_directory_that_cannot_be_created_is_refused_in_one_line(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises((rc.InputError, NotADirectoryError)) as refused:
        files.make_directory(tmp_path / path)
    assert "\n" not in str(refused.value)
