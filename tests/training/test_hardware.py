"""The choice of device, precision and compilation."""

from types import SimpleNamespace

import pytest
import torch
from tiny_training import CPU

from regioncount import training
from regioncount.errors import InputError


def test_workers_share_the_gpus_evenly(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = []
    for name in ("MainProcess", "LokyProcess-1", "LokyProcess-2", "LokyProcess-3"):
        monkeypatch.setattr("multiprocessing.current_process", lambda name=name: SimpleNamespace(name=name))
        chosen.append(training.choose_device("auto").index)
    assert chosen == [0, 0, 1, 0]


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "mps", "cuda:x"])
def test_a_missing_device_raises_an_error_with_its_name(device):
    with pytest.raises(InputError, match=f"device={device}"):
        training.choose_device(device)


def test_auto_compiles_long_runs_on_a_cpu_with_a_compiler(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    cuda = torch.device("cuda")
    assert training.choose_compilation("auto", CPU, 1e15)
    assert not training.choose_compilation("auto", CPU, 1e12)
    assert not training.choose_compilation("auto", cuda, 1e15)
    assert training.choose_compilation(True, cuda, 0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not training.choose_compilation("auto", CPU, 1e15)
    assert training.choose_compilation(True, cuda, 0)
    with pytest.raises(InputError, match="compile=true"):
        training.choose_compilation(True, CPU, 0)
