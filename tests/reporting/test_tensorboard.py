"""TensorBoard as a tracker: event files are read back with TensorBoard's own reader."""

import sys

import pytest

from regioncount.errors import InputError
from regioncount.runs import trackers

pytest.importorskip("tensorboard")

CONFIG = {"model": {"name": "mlp", "width": 8}, "measures": ["accuracy", "loss"], "notes": None, "results": "somewhere"}


def start(directory, **options):
    options = {"mode": "tensorboard", "identity": "ab" * 8, "name": "a/run x=1", "config": CONFIG} | options
    return trackers.start(directory=directory, **options)


def scalars(directory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [folder] = {path.parent for path in directory.glob("tensorboard/**/events.*")}
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    values = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return folder, events, values


def test_scalars_by_epoch_final_values_and_hyperparameters(tmp_path, capsys):
    with start(tmp_path, group="a sweep") as track:
        for epoch in (1, 2):
            track.log({"running_loss": 1 / epoch, "undefined": float("nan")}, step=epoch)
        for epoch in (0, 1, 2):
            track.log_snapshot({"test_accuracy": epoch / 4}, epoch)
        track.summarize({"status": "finished", "epochs_trained": 2, "test_accuracy": 0.5, "fitted": True, "none": None})
        assert not track.lost
    folder, events, values = scalars(tmp_path)
    assert folder == tmp_path / "tensorboard" / "a-sweep" / f"a-run-x=1-{'ab' * 8}"
    assert values["running_loss"] == [(1, 1.0), (2, 0.5)]
    assert values["test_accuracy"] == [(0, 0.0), (1, 0.25), (2, 0.5)]  # the final value is not repeated
    assert (values["fitted"], values["epochs_trained"]) == ([(2, 1.0)], [(2, 2.0)])
    assert "undefined" not in values
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    for part in (b"model.width", b"measures", b"accuracy, loss"):
        assert part in content
    assert b"somewhere" not in content
    assert capsys.readouterr().err == f"tracker=tensorboard: tensorboard --logdir {tmp_path}/tensorboard\n"


def test_a_resumed_run_replaces_the_epochs_that_it_repeats(tmp_path):
    for value, epochs in ((1.0, (1, 2, 3)), (2.0, (3, 4))):
        with start(tmp_path) as track:
            for epoch in epochs:
                track.log({"running_loss": value}, step=epoch)
    assert scalars(tmp_path)[2]["running_loss"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def test_a_process_that_is_killed_has_written_its_epochs(tmp_path):
    manager = start(tmp_path)
    manager.__enter__().log({"running_loss": 1.0}, step=1)
    assert scalars(tmp_path)[2]["running_loss"] == [(1, 1.0)]
    manager.__exit__(None, None, None)


def test_figures_are_images(tmp_path):
    from PIL import Image

    Image.new("RGBA", (4, 3), "red").save(tmp_path / "picture.png")
    with start(tmp_path) as track:
        assert not track.draws_charts
        track.figure("heat_maps", tmp_path / "picture.png", "a caption")
    [image] = scalars(tmp_path)[1].Images("heat_maps")
    assert (image.width, image.height) == (4, 3)


def test_an_unwritable_directory_does_not_end_the_run(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("a file")
    with start(tmp_path) as track:
        track.log({"running_loss": 1.0}, step=1)
        assert track.lost
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tracker=tensorboard failed (")


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    message = (
        "tracker=tensorboard needs tensorboard: run `uv sync --extra tensorboard` or, without uv, `pip install tensorboard`"
    )
    with pytest.raises(InputError, match=message), start(tmp_path):
        pass
