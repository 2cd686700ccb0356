"""Untrusted files and malformed configurations are processed or refused in one line, without other effects."""

import hashlib
import os
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import fake_sweeps
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_runner import configuration

from regioncount.config import as_mapping, parse_dataset, parse_measuring, parse_run
from regioncount.data import image_folder, image_listing
from regioncount.errors import InputError
from regioncount.reporting import report
from regioncount.runs import describe, files, measuring, plans, runner, store
from regioncount.runs.checkpoints import load_checkpoint
from regioncount.runs.measurements import measured_values

SECRET = "a-value-that-must-not-be-shown"
MARKUP = "<script>alert(1)</script>"
TEXTS = ["${oc.env:A_SECRET}", "${oc.env:A_SECRET,x}", "???", MARKUP, "a\nb", "\x1b[2J", "../../outside", "/etc/passwd", ""]
TEXTS += ["builtins.eval", "é" * 300, "\u202e", "\x00"]
PLAIN = st.none() | st.booleans() | st.integers(-3, 300) | st.sampled_from(TEXTS) | st.floats()
HUGE = st.sampled_from([2**63, -(2**63), 10**40, 1e308])
VALUES = st.recursive(
    PLAIN | HUGE, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(TEXTS), inner), max_leaves=4
)
FUZZING = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class AuditHook:
    """An audit hook that records started processes and opened files that an untrusted file might name."""

    def __init__(self):
        self.events = None
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.events is None:
            return
        if event in ("subprocess.Popen", "os.system", "os.exec", "pickle.find_class"):
            self.events.append((event, str(arguments[:2])))
        if event == "open" and ("passwd" in str(arguments[0]) or "outside" in str(arguments[0])):
            self.events.append((event, str(arguments[0])))


@pytest.fixture(scope="module")
def audit_hook():
    hook = AuditHook()
    yield hook
    hook.events = None


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("A_SECRET", SECRET)


def member_paths(value, path=()):
    """Yield the path of every member of nested mappings and lists."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from member_paths(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from member_paths(item, (*path, number))


def mutate(data, value):
    """Return a copy in which one to three members are replaced, removed or added."""
    value = files.json.loads(files.json.dumps(value))
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(sorted(member_paths(value), key=str)))
        holder = value
        for key in above:
            holder = holder[key]
        match data.draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                holder[last] = data.draw(VALUES)
            case "remove":
                del holder[last]
            case "add" if isinstance(holder, dict):
                holder[data.draw(st.sampled_from(TEXTS))] = data.draw(VALUES)
        if not list(member_paths(value)):
            break
    return value


def rewrite(data, path):
    """Mutate a record and give it a valid checksum."""
    try:
        files.write_json(path, mutate(data, files.read_json(path)))
    except UnicodeEncodeError:
        path.write_text("{}")


@pytest.fixture(scope="module")
def made_up_sweep(tmp_path_factory):
    results = tmp_path_factory.mktemp("made_up_sweep")
    directory = fake_sweeps.write_sweep(results, rates=(0.1, 0.01), sizes=(32,), seeds=(0,), failed=(1,))
    return results, directory.name


@pytest.mark.parametrize("name", ["plan.json", "run.json", "measures.json", "failure"])
@settings(FUZZING, max_examples=15)
@given(data=st.data())
def test_an_untrusted_sweep_is_reported_or_refused(tmp_path_factory, made_up_sweep, audit_hook, capsys, name, data):
    results = tmp_path_factory.mktemp("untrusted") / "results"
    shutil.copytree(made_up_sweep[0], results)
    sweep = results / "sweeps" / made_up_sweep[1]
    paths = {"plan.json": sweep / name, "failure": next((sweep / "failures").iterdir())}
    paths |= {kind: next(results.glob(f"runs/*/{kind}")) for kind in ("run.json", "measures.json")}
    rewrite(data, paths[name])
    audit_hook.events = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        status = report.main([str(sweep)])
    events, audit_hook.events = audit_hook.events, None
    output = capsys.readouterr()
    assert events == []
    assert status in (0, 1, 2)
    assert status != 2 or len(output.err.splitlines()) == 1
    written = [path.read_bytes() for path in results.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in content for content in written)
    assert SECRET not in output.out + output.err
    assert "\x1b" not in output.out + output.err
    if (sweep / "report.html").exists():
        assert MARKUP not in (sweep / "report.html").read_text()
    shutil.rmtree(results.parent)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return runner.run_or_resume(runner.prepare(configuration(tmp_path_factory.mktemp("trained"), epochs=1)))


@settings(FUZZING, max_examples=60)
@given(data=st.data())
def test_an_untrusted_run_is_measured_or_refused(tmp_path_factory, trained, audit_hook, data):
    directory = tmp_path_factory.mktemp("untrusted") / "run"
    shutil.copytree(trained.directory, directory)
    rewrite(data, directory / data.draw(st.sampled_from(["run.json", "measures.json"])))
    config = parse_measuring({"run": str(directory), "measures": ["accuracy", "parameter_norm"]})
    audit_hook.events = []
    output_text = ""
    try:
        run, dataset = measuring.open_for_measuring(config)
        epochs = measuring.measure_epochs(run, config, dataset, torch.device("cpu"))
        output_text = describe.describe(run, config, dataset, epochs)
    except InputError as error:
        output_text = str(error)
    assert output_text
    assert SECRET not in output_text
    events, audit_hook.events = audit_hook.events, None
    assert [event for event in events if event[0] != "pickle.find_class"] == []
    shutil.rmtree(directory.parent)


@pytest.mark.parametrize("name", ["run.json", "model.pt", "history.csv"])
def test_a_damaged_run_is_refused_before_it_is_measured(tmp_path, trained, name):
    shutil.copytree(trained.directory, tmp_path / "run")
    content = bytearray((tmp_path / "run" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "run" / name).write_bytes(content)
    config = parse_measuring({"run": str(tmp_path / "run"), "measures": ["accuracy", "parameter_norm"]})
    with pytest.raises(InputError, match=rf"{name} is damaged: .*; rerun the train.py or sweep.py command of this run"):
        measuring.open_for_measuring(config)


@settings(FUZZING, max_examples=150)
@given(data=st.data())
def test_a_malformed_configuration_is_prepared_or_refused(tmp_path_factory, data):
    plain = as_mapping(configuration("results"))
    plain = {key: value for key, value in plain.items() if key != "tracker"}
    output_text = ""
    try:
        config = parse_run(mutate(data, plain))
        if config.dataset.name == "digits":
            output_text = runner.prepare(config).identity
    except InputError as error:
        output_text = str(error)
    assert SECRET not in output_text


@settings(FUZZING, max_examples=100)
@given(content=st.binary(max_size=400) | st.text(alphabet='{}[]":,0123456789.eE+-truefalsn ', max_size=60).map(str.encode))
def test_a_record_of_random_bytes_is_refused(tmp_path_factory, trained, content):
    directory = tmp_path_factory.mktemp("bytes")
    (directory / "run.json").write_bytes(content)
    (directory / "plan.json").write_bytes(content)
    with pytest.raises(InputError):
        store.load(directory)
    with pytest.raises(InputError):
        plans.read(directory)
    shutil.rmtree(directory)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" * 400])
def test_a_number_that_is_not_finite_is_refused(tmp_path, number):
    value = {"a": 1}
    files.write_json(tmp_path / "run.json", value)
    content = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(content.replace('"a": 1', f'"a": {number}'))
    with pytest.raises(files.Damaged, match=r"is not a finite number|more than 40 digits"):
        files.read_json(tmp_path / "run.json")


@pytest.mark.parametrize(
    "state",
    [[torch.ones(1)], {0: torch.ones(1)}, {"a": 1}, {"state_dict": {0: torch.ones(1)}}, {"model": {}}, torch.ones(2)],
)
def test_a_checkpoint_that_is_not_a_state_dictionary_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"weights\.pt is not a state dictionary"):
        load_checkpoint(tmp_path / "weights.pt", torch.nn.Linear(1, 1))


def test_a_complex_checkpoint_is_refused(tmp_path):
    torch.save({"weight": torch.ones(1, 1, dtype=torch.complex64), "bias": torch.ones(1)}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"weight is complex \(torch\.complex64\)"):
        load_checkpoint(tmp_path / "weights.pt", torch.nn.Linear(1, 1))


def test_measurements_of_another_run_are_damage(tmp_path):
    sweep = fake_sweeps.write_sweep(tmp_path, rates=(0.1, 0.01), sizes=(32,), seeds=(0,))
    one, other = sorted(tmp_path.glob("runs/[!.]*"))
    shutil.copy(other / "measures.json", one)
    assert report.main([str(sweep)]) == 1
    rows = pd.read_csv(sweep / "runs.csv").set_index("directory")
    assert rows.loc[str(one), "status"] == "damaged"
    assert "measures.json is damaged: it belongs to the run" in rows.loc[str(one), "error"]
    assert rows.loc[str(other), "status"] == "finished"


@pytest.mark.parametrize("damage", ["text", "directory"])
def test_damaged_measurements_are_set_aside_before_a_run_is_measured(tmp_path, trained, capsys, damage):
    shutil.copytree(trained.directory, tmp_path / "runs" / "run")
    path = tmp_path / "runs" / "run" / "measures.json"
    if damage == "text":
        path.write_text("x" + path.read_text())
    else:
        path.unlink()
        path.mkdir()
    config = parse_measuring({"run": str(path.parent), "measures": ["accuracy", "parameter_norm"]})
    run, dataset = measuring.open_for_measuring(config)
    measuring.measure_epochs(run, config, dataset, torch.device("cpu"))
    assert "measures.json" in capsys.readouterr().err
    assert len(list((tmp_path / "damaged").iterdir())) == 1
    assert len(store.load(path.parent).measures) == 2


def test_a_measure_is_not_undefined_because_the_initial_weights_are_damaged(tmp_path, capsys):
    """The run is trained again, as after any other damage, and measured."""
    config = configuration(tmp_path)
    directory = runner.run_or_resume(runner.prepare(config)).directory
    (directory / "initial.pt").write_bytes(b"x" + (directory / "initial.pt").read_bytes())
    measuring_config = parse_measuring({"run": str(directory), "measures": ["distance_from_initialization"]})
    run, dataset = measuring.open_for_measuring(measuring_config)
    with pytest.raises(InputError, match=r"initial\.pt is damaged.*; rerun the train\.py"):
        measuring.measure_epochs(run, measuring_config, dataset, torch.device("cpu"))
    prepared = runner.prepare(replace(config, measures=["accuracy", "distance_from_initialization"]))
    row = measured_values(runner.run_or_resume(prepared), prepared.config, prepared.dataset)
    assert row["distance_from_initialization"] > 0
    assert "training the run again" in capsys.readouterr().err


def test_the_workers_of_a_record_are_not_started():
    recorded = as_mapping(configuration("results"))
    recorded["dataset"] |= {"workers": 40}
    assert parse_run(recorded, recorded=True).dataset.workers is None
    assert parse_dataset(recorded["dataset"]).workers is None
    assert parse_dataset(recorded["dataset"], ["dataset.workers=3"]).workers == 3


@pytest.mark.parametrize("content", [b"", b"epoch\n", b"learning_rate\n0.1\n", b"epoch\n1\n1\n", b"\xff\xfe", b'"'])
def test_a_run_with_an_invalid_history_is_a_damaged_row(tmp_path, content):
    sweep = fake_sweeps.write_sweep(tmp_path, rates=(0.1, 0.01), sizes=(32,), seeds=(0,))
    run = store.load(next(tmp_path.glob("runs/[!.]*")))
    (run.directory / "history.csv").write_bytes(content)
    run.record["checksums"]["history.csv"] = hashlib.sha256(content).hexdigest()
    run.save_record()
    assert report.main([str(sweep)]) == 1
    rows = pd.read_csv(sweep / "runs.csv").set_index("identity")
    assert rows["status"].value_counts().to_dict() == {"damaged": 1, "finished": 1}
    assert "history.csv is damaged" in rows.loc[run.identity, "error"]


def test_a_run_with_damaged_measures_is_a_damaged_row(tmp_path):
    sweep = fake_sweeps.write_sweep(tmp_path, rates=(0.1, 0.01), sizes=(32,), seeds=(0,))
    directory = next(tmp_path.glob("runs/[!.]*"))
    content = (directory / "measures.json").read_text()
    (directory / "measures.json").write_text(content.replace("0.5", "0.6", 1))
    assert report.main([str(sweep)]) == 1
    rows = pd.read_csv(sweep / "runs.csv").set_index("directory")
    assert rows.loc[str(directory), "status"] == "damaged"
    assert "measures.json is damaged" in rows.loc[str(directory), "error"]
    assert rows["status"].tolist().count("finished") == 1


@pytest.mark.parametrize("damage", ["flipped", "missing", "shape", "type"])
def test_a_run_with_damaged_labels_is_a_damaged_row(tmp_path, damage):
    sweep = fake_sweeps.write_sweep(
        tmp_path, rates=(0.1,), sizes=(32,), seeds=(0, 1, 2), measures=("accuracy", "seed_agreement"), labels=True
    )
    assert report.main([str(sweep)]) == 0
    assert pd.read_csv(sweep / "runs.csv")["seed_agreement"].tolist() == [1.0, 1.0, 1.0]
    run = store.load(next(tmp_path.glob("runs/[!.]*")))
    path = run.directory / "regions.npz"
    ((name, labels),) = [(name, array) for name, array in run.region_arrays().items() if name.endswith("/labels")]
    if damage == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        key, changed = name.partition("/")[0], labels[:1] if damage == "shape" else labels.astype(float) / 2
        run.measures[key]["arrays"] = {} if damage == "missing" else {"labels": files.array_digest(changed)}
        files.write(path, files.array_bytes({name: changed}))
        files.write_json(run.directory / "measures.json", {"entries": run.measures})
    assert report.main([str(sweep)]) == 1
    rows = pd.read_csv(sweep / "runs.csv").set_index("identity")
    assert rows["status"].value_counts().to_dict() == {"finished": 2, "damaged": 1}
    assert "regions.npz" in rows.loc[run.identity, "error"]
    assert rows["seed_agreement"].dropna().tolist() == [1.0, 1.0]
    store.repair(broken := store.load(run.directory))  # as a rerun of the sweep does
    assert not any(entry["settings"]["measure"] == "seed_agreement" for entry in broken.measures.values())


def test_a_decompression_bomb_is_refused(tmp_path):
    path = tmp_path / "large.png"
    Image.new("1", (12_000, 12_000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match=r"large\.png.*too many"):
        image_folder.decode(str(path))


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", os.fsdecode(b"\xff")])
def test_unprintable_class_names_are_refused(tmp_path, name):
    for split in ("train", "test"):
        (tmp_path / split / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(Path(tmp_path, split, name, "image.png"))
    with pytest.raises(InputError, match="rename it") as caught:
        image_listing.list_folder(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [None, '{"entries": {}}'])
def test_a_run_without_measurements_is_a_damaged_row(tmp_path, content):
    sweep = fake_sweeps.write_sweep(tmp_path, rates=(0.1, 0.01), sizes=(32,), seeds=(0,))
    directory = next(tmp_path.glob("runs/[!.]*"))
    (directory / "measures.json").unlink()
    if content:
        files.write_json(directory / "measures.json", files.json.loads(content))
    assert report.main([str(sweep)]) == 1
    rows = pd.read_csv(sweep / "runs.csv").set_index("directory")
    assert rows.loc[str(directory), "status"] == "damaged"
    assert "no measurements" in rows.loc[str(directory), "error"]


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_results_directory_is_refused(path):
    with pytest.raises(InputError, match=r"results= ?: give a path"):
        configuration(path)


def test_a_lattice_that_is_too_large_is_refused_before_training(tmp_path):
    with pytest.raises(InputError, match=r"regions\.line\.resolution=1000000000: the lattice"):
        configuration(tmp_path, regions={"line": {"dimension": 1, "resolution": 10**9}})
