"""Weights are read from checkpoints as other programs write them, and what is not loaded is named."""

import argparse
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from regioncount.errors import InputError
from regioncount.runs.checkpoints import load_checkpoint


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def trained():
    torch.manual_seed(0)
    model = network()
    model(torch.randn(5, 1, 4, 4))
    return model


class Lightning(nn.Module):
    """A module that holds the network and a loss with weights, as those of Lightning do."""

    def __init__(self, model):
        super().__init__()
        self.model, self.criterion = model, nn.CrossEntropyLoss(weight=torch.ones(3))


def without_counters(state):
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


OTHERS = {"epoch": 3, "best": np.float64(0.9), "loss": np.float32(1), "args": argparse.Namespace(lr=0.1), "log": np.zeros(3)}
# What is saved, from the trained network, and what is named as not loaded.
FILES = {
    "the state dictionary": (lambda model: model.state_dict(), None),
    "state_dict": (lambda model: {"state_dict": model.state_dict(), **OTHERS}, "epoch, best, loss, args, log"),
    "model_state_dict": (lambda model: {"epoch": 1, "model_state_dict": model.state_dict()}, "epoch"),
    "model": (lambda model: {"model": model.state_dict(), "model_ema": network().state_dict()}, "model_ema"),
    "options named as weights": (lambda model: {"model": {"width": 3}, "net": model.state_dict()}, "model"),
    "model_ema": (lambda model: {"model_ema": model.state_dict()}, None),
    "state_dict_ema": (lambda model: {"state_dict_ema": model.state_dict(), "epoch": 1}, "epoch"),
    "many others": (
        lambda model: {"net": model.state_dict(), **{f"o{i}": i for i in range(7)}},
        "o0, o1, o2, o3, o4 and 2 more",
    ),
    "DataParallel": (lambda model: nn.DataParallel(model).state_dict(), None),
    "torch.compile": (lambda model: torch.compile(model).state_dict(), None),
    "DataParallel and torch.compile": (lambda model: nn.DataParallel(torch.compile(model)).state_dict(), None),
    "AveragedModel": (lambda model: AveragedModel(model).state_dict(), "n_averaged"),
    "Lightning": (lambda model: {"state_dict": Lightning(model).state_dict(), "epoch": 1}, "epoch, criterion.weight"),
    "an old version of torch": (lambda model: without_counters(model.state_dict()), None),
}


@pytest.mark.parametrize("kind", FILES)
def test_checkpoints_of_other_programs_are_read(tmp_path, kind, capsys):
    model = trained()
    content, left = FILES[kind]
    torch.save(content(model), tmp_path / "weights.pt")
    loaded = network()
    state = load_checkpoint(tmp_path / "weights.pt", loaded)
    for values in (state, loaded.state_dict()):
        assert list(values) == list(model.state_dict())
        for name, value in without_counters(model.state_dict()).items():
            assert torch.equal(values[name], value)
    message = capsys.readouterr().err
    assert message.partition("not loaded: ")[2].strip() == (left or "")


@pytest.mark.parametrize("averaged", ["model_ema", "state_dict_ema", "ema"])
def test_the_weights_under_a_key_are_read(tmp_path, averaged, capsys):
    model, average = trained(), network()
    torch.save({"model": model.state_dict(), averaged: average.state_dict(), "epoch": 3}, tmp_path / "weights.pt")
    for key, expected, other in ((None, model, averaged), ("model", model, averaged), (averaged, average, "model")):
        state = load_checkpoint(tmp_path / "weights.pt", network(), key)
        assert all(torch.equal(state[name], value) for name, value in expected.state_dict().items())
        assert f"checkpoint_key={other} reads those under '{other}'); not loaded: {other}" in capsys.readouterr().err
    for key in ("epoch", "no_key", ""):
        with pytest.raises(InputError, match=f"checkpoint_key={key}: not a key .*; those of weights are model, {averaged}$"):
            load_checkpoint(tmp_path / "weights.pt", network(), key)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match="it has none"):
        load_checkpoint(tmp_path / "weights.pt", network(), averaged)


def test_safetensors_are_read(tmp_path):
    model = trained()
    save_file({name: value.clone() for name, value in model.state_dict().items()}, tmp_path / "weights.safetensors")
    loaded = network()
    load_checkpoint(tmp_path / "weights.safetensors", loaded)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    (tmp_path / "weights.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="is not a file of safetensors"):
        load_checkpoint(tmp_path / "weights.safetensors", loaded)


def test_a_network_whose_own_names_have_a_prefix_keeps_it(tmp_path):
    model = Lightning(trained())
    torch.save(nn.DataParallel(model).state_dict(), tmp_path / "weights.pt")
    loaded = Lightning(network())
    load_checkpoint(tmp_path / "weights.pt", loaded)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def converted(function):
    state = network().state_dict()
    return {name: function(value) if value.is_floating_point() else value for name, value in state.items()}


class Custom:
    """An object of a user's own class."""


REFUSED = {
    "weights under another key": (
        {"ema": network().state_dict(), "epoch": 3},
        r"its keys are ema, epoch, and weights are read under state_dict, .*; pass checkpoint_key=ema$",
    ),
    "no weights": ({f"o{i}": i for i in range(7)}, "its keys are o0, o1, o2, o3, o4 and 2 more, and weights are read under"),
    "NumPy arrays": ({name: value.numpy() for name, value in network().state_dict().items()}, r"NumPy arrays; .*as_tensor"),
    "a weight that is None": ({"state_dict": {**network().state_dict(), "a": None}}, r"not all tensors: a \(NoneType\)"),
    "a prefix of the file": (
        {f"backbone.{name}": value for name, value in network().state_dict().items()},
        r"the names in the file begin with 'backbone\.', .*; save {name\.removeprefix\('backbone\.'\): value",
    ),
    "a prefix of the file, and another last layer": (
        {f"a.b.{name}": value for name, value in network().state_dict().items() if name != "3.bias"} | {"c": torch.ones(1)},
        r"begin with 'a\.b\.', those of the model do not, and the file has no 3\.bias; the model has no c$",
    ),
    "a missing weight": ({"0.weight": torch.ones(2, 1, 3, 3)}, "the file has no 0.bias, 1.weight, .* and 2 more"),
    "another name": ({f"{name}.a": value for name, value in network().state_dict().items()}, "the model has no 0.weight.a"),
    "more weights": ({**network().state_dict(), "4.weight": torch.ones(1)}, "the model has no 4.weight; choose the model"),
    "another shape": ({**network().state_dict(), "3.bias": torch.ones(4)}, r"3.bias has the shape \(4,\), not \(3,\)"),
    "integers": (converted(lambda weight: (weight * 10).to(torch.int8)), "0.weight is torch.int8; save floating point"),
    "float8": (converted(lambda weight: weight.to(torch.float8_e4m3fn)), "0.weight is torch.float8_e4m3fn; save floating"),
    "quantized": (
        converted(lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)),
        "0.weight is sparse or quantized",
    ),
    "sparse": (converted(Tensor.to_sparse), "0.weight is sparse or quantized"),
    "meta": (converted(lambda weight: weight.to("meta")), "0.weight is without values"),
    "complex": (converted(lambda weight: weight + 0j), "0.weight is complex"),
    "a prefix of all names but one": (
        {"3.bias" if name == "3.bias" else f"module.{name}": value for name, value in network().state_dict().items()},
        r"the file has no 3.bias \(3.bias only without the prefix of the others\)$",
    ),
    "a module": (network(), "contains Python objects .torch.nn.modules.container.Sequential.*state_dict"),
    "an object": ({"state_dict": network().state_dict(), "own": Custom()}, "contains Python objects .*Custom"),
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated", "ignore:Validating sparse tensor")
@pytest.mark.parametrize("kind", REFUSED)
def test_other_weights_are_refused_in_one_line(tmp_path, kind):
    content, message = REFUSED[kind]
    torch.save(content, tmp_path / "weights.pt")
    before = trained()
    model = trained()
    with pytest.raises(InputError, match=message) as refused:
        load_checkpoint(tmp_path / "weights.pt", model)
    assert "\n" not in str(refused.value)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.state_dict().items())


def test_a_prefix_that_only_the_model_has_is_named(tmp_path):
    torch.save(network().state_dict(), tmp_path / "weights.pt")
    model = nn.ModuleDict({"backbone": network()})
    with pytest.raises(
        InputError, match=r"model's names begin with 'backbone\.', .* save {'backbone\.' \+ name: value"
    ) as refused:
        load_checkpoint(tmp_path / "weights.pt", model)
    # The expression in the message gives weights that fit.
    renamed = eval(str(refused.value).partition("save ")[2], {"weights": network().state_dict()})
    assert renamed.keys() == model.state_dict().keys()


def test_the_line_in_the_message_saves_the_weights(tmp_path, monkeypatch):
    model = trained()
    torch.save({"ema": model.state_dict(), "path": tmp_path, "epoch": 1}, tmp_path / "objects.pt")
    with pytest.raises(InputError, match=r"\[\"state_dict\"\]") as refused:
        load_checkpoint(tmp_path / "objects.pt", network())
    line = str(refused.value).partition("save the weights alone: ")[2].partition(", which runs")[0]
    exec(line.replace("state_dict", "ema"), {"torch": torch, "NEW_FILE": tmp_path / "saved.pt"})
    loaded = load_checkpoint(tmp_path / "saved.pt", network())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.items())


def test_damage_to_any_record_is_seen(tmp_path):
    """`torch.load` ignores the checksums, and would return other values."""
    path = tmp_path / "weights.pt"
    torch.save(trained().state_dict(), path)
    intact = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.file_size]
    assert len(members) > 7
    for member in members:
        # The data come after the local header of 30 bytes, the name, and padding.
        lengths = np.frombuffer(intact[member.header_offset + 26 : member.header_offset + 30], dtype="<u2")
        content = bytearray(intact)
        content[member.header_offset + 30 + int(lengths.sum()) + member.file_size // 2] ^= 255
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=rf"weights\.pt is damaged: the checksum of its record {member.filename} differs"
        ):
            load_checkpoint(path, network())


@given(position=st.integers(0, 2**32), bits=st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_changed_byte_changes_no_weight_in_silence(tmp_path_factory, position, bits):
    model = trained()
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(model.state_dict(), path)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= bits
    path.write_bytes(content)
    try:
        loaded = load_checkpoint(path, network())
    except InputError:
        return
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.items())


def test_a_file_without_checksums_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(trained().state_dict(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(
        InputError, match=r"no checksums, .* save it again with torch\.serialization\.set_crc32_options\(True\)"
    ):
        load_checkpoint(path, network())
    torch.save(trained().state_dict(), path, _use_new_zipfile_serialization=False)  # a format that has none
    load_checkpoint(path, network())


def saved_script(path):
    torch.jit.script(network()).save(path)


def saved_arrays(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))


# How a file is written that is not one of weights, and what is said about it.
OTHER_FILES = {
    "a web page": (lambda path: path.write_text("\n<!DOCTYPE html>\n<html>"), "is a web page"),
    "an error message": (lambda path: path.write_text("<?xml version='1.0'?><Error/>"), "is an XML document"),
    "a pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "nothing": (lambda path: path.write_bytes(b""), "is empty"),
    "TorchScript": (saved_script, r"TorchScript program; .*torch\.jit\.load\(FILE\)\.state_dict"),
    "arrays": (saved_arrays, r"file of NumPy arrays; name it weights\.npz"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files_are_recognized(tmp_path, kind, suffix):
    save, message = OTHER_FILES[kind]
    path = tmp_path / f"weights{suffix}"
    save(path)
    with pytest.raises(InputError, match=message):
        load_checkpoint(path, network())


def test_arrays_of_numpy_are_refused_with_the_line_that_converts_them(tmp_path):
    np.savez(tmp_path / "weights.npz", **{name: value.numpy() for name, value in trained().state_dict().items()})
    with pytest.raises(InputError, match=r"file of NumPy arrays; save tensors: torch\.save") as refused:
        load_checkpoint(tmp_path / "weights.npz", network())
    line = str(refused.value).partition("save tensors: ")[2]
    names = {"FILE": tmp_path / "weights.npz", "NEW_FILE": tmp_path / "weights.pt", "torch": torch, "numpy": np}
    exec(line, names)
    load_checkpoint(tmp_path / "weights.pt", network())
