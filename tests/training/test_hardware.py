"""The choice of device, precision and compilation."""

from types import SimpleNamespace

import pytest
import torch
from tiny_training import CPU

import regioncount as rc
from regioncount import training
from regioncount.errors import InputError
from regioncount.regions.evaluation import as_float64, float64_device
from regioncount.runs import measuring
from regioncount.training import hardware


def test_workers_share_the_gpus_evenly(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(hardware, "_freest_gpu", lambda: 1)
    chosen = []
    for name in ("MainProcess", "LokyProcess-1", "LokyProcess-2", "LokyProcess-3"):
        monkeypatch.setattr("multiprocessing.current_process", lambda name=name: SimpleNamespace(name=name))
        chosen.append(training.choose_device("auto").index)
    assert chosen == [1, 0, 1, 0]


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "mps", "cuda:x"])
def test_a_missing_device_raises_an_error_with_its_name(device):
    with pytest.raises(InputError, match=f"device={device}"):
        training.choose_device(device)


def test_mps_is_chosen_only_if_it_is_asked_for_and_there(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert training.choose_device("mps") == torch.device("mps")
    assert training.choose_device("auto").type != "mps"
    assert training.choose_precision("auto", torch.device("mps")) == "float32"
    with pytest.raises(InputError, match="device=mps:1: give auto, cpu, cuda, cuda:N or mps"):
        training.choose_device("mps:1")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="device=mps: this machine, or this version of torch, has no MPS; pass device=cpu"):
        training.choose_device("mps")


class TensorOnMPS:
    """A tensor that raises if it is converted to float64 before it is on the CPU, as those on MPS do."""

    device = torch.device("mps")

    def __init__(self, values):
        self.values = values

    def to(self, device):
        return self.values.to(device)

    def double(self):
        raise TypeError("MPS has no float64")


def test_float64_of_mps_is_on_the_cpu():
    values = torch.tensor([0.1, 2.0])
    converted = as_float64(TensorOnMPS(values))
    assert converted.dtype == torch.float64
    assert torch.equal(converted.float(), values)
    assert as_float64(values).device == values.device
    assert float64_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


def test_measures_that_need_float64_are_computed_on_the_cpu(tmp_path, monkeypatch):
    # cpu:0 stands for the CPU, and cpu for MPS; torch tells the two apart.
    monkeypatch.setattr(measuring, "float64_device", lambda device: torch.device("cpu", 0))
    monkeypatch.setattr(measuring, "device_name", str)
    options = ["epochs=1", "dataset.train_size=50", "model.width=2", "regions.line.number=2", "regions.line.resolution=5"]
    run = rc.train([*options, f"results={tmp_path}", "device=cpu", "measures=[accuracy,parameter_norm]"])
    devices = {entry["settings"]["measure"]: entry["how"]["device"] for entry in run.measures.values()}
    assert devices == {"accuracy": "cpu", "region_count": "cpu", "parameter_norm": "cpu:0"}


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


NVIDIA_SMI = """#!/bin/sh
[ "$*" = "--query-gpu=uuid,memory.free --format=csv,noheader,nounits" ] || exit 9
printf 'GPU-%s, %s\\n' {lines}
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that gives this machine GPUs: their models, and the free memory by UUID."""

    def install(names, free):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda index: SimpleNamespace(name=names[index], uuid=f"uuid-{index}")
        )
        program = tmp_path / "nvidia-smi"
        program.write_text(NVIDIA_SMI.format(lines=" ".join(f"{uuid} {memory}" for uuid, memory in free.items())))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        hardware._freest_gpu.cache_clear()

    yield install
    hardware._freest_gpu.cache_clear()


def test_a_process_takes_the_gpu_with_the_most_free_memory(machine):
    # nvidia-smi lists all GPUs of the machine in an order of its own; CUDA sees some of them.
    machine(["A100"] * 3, {"uuid-9": 90000, "uuid-2": 300, "uuid-1": 80000, "uuid-0": 9000})
    assert training.choose_device("auto") == torch.device("cuda", 1)
    machine(["A100"] * 3, {"uuid-0": 9001, "uuid-1": 9000, "uuid-2": 300})
    assert training.choose_device("auto") == torch.device("cuda", 0)


def test_the_choice_is_kept(machine, monkeypatch):
    machine(["A100"] * 2, {"uuid-0": 1, "uuid-1": 2})
    chosen = training.choose_device("auto")
    monkeypatch.setenv("PATH", "")
    assert training.choose_device("auto") == chosen == torch.device("cuda", 1)


def test_the_model_of_the_gpu_does_not_depend_on_free_memory(machine):
    machine(["A100", "T4", "A100"], {"uuid-0": 100, "uuid-1": 16000, "uuid-2": 101})
    assert training.choose_device("auto").index == 2
    machine(["A100", "T4"], {"uuid-0": 0, "uuid-1": 16000})
    assert training.choose_device("auto").index == 0


@pytest.mark.parametrize("free", [{}, {"uuid-0": "[N/A]", "uuid-1": 3}, {"other": 3}])
def test_without_known_memory_the_first_gpu_is_taken(machine, free):
    machine(["A100"] * 2, free)
    assert training.choose_device("auto").index == 0
