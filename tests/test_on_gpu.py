"""The script for work on a GPU, rehearsed on a CPU with a tiny network."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "benchmarks/on_gpu.py"
TINY = ("model.width=2", "epochs=2", "batch_size=8", "optimizer.learning_rate=0.1,0.01", "stop.train_accuracy=null")
FEW = tuple(f"regions.{name}.number=3" for name in ("line", "plane", "coarse_plane", "simplex_3"))


def rehearse(images: Path, output: Path) -> str:
    """Run the sweeps of the script and return what they print."""
    options = ["--minutes", "3", "--output", output, "--data", images]
    options += ["--parts", "runs", "--networks", "small_cnn", "--seeds", "0"]
    command = [sys.executable, SCRIPT, *TINY, *FEW, "device=cpu", "compile=false", *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_new_runs_are_archived_without_weights_and_found_again(tmp_path):
    random = np.random.default_rng(0)
    for split, number in (("train", 12), ("test", 4)):
        for label in ("a", "b"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for i in range(number):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / label / f"{i}.png")
    output = rehearse(tmp_path / "images", tmp_path / "first")
    assert "| small_cnn | 2 |" in output
    assert "already complete" not in output

    with tarfile.open(tmp_path / "first/new_runs.tar.gz") as archive:
        files = {Path(name).name for name in archive.getnames()}
        assert files == {"history.csv", "measures.json", "regions.npz", "run.json"}
        archive.extractall(tmp_path / "second/results", filter="data")
    output = rehearse(tmp_path / "images", tmp_path / "second")
    assert output.count("(already complete)") == 2
    assert "| small_cnn | 2 |" in output
    for measures in (tmp_path / "second/results/runs").glob("*small_cnn*/measures.json"):
        settings = [entry["settings"] for entry in json.loads(measures.read_text())["entries"].values()]
        subspaces = [setting["subspace"] for setting in settings if "subspace" in setting]
        shapes = sorted((subspace["dimension"], subspace["resolution"]) for subspace in subspaces)
        assert shapes == [(1, 200), (2, 5), (2, 10), (3, 5)]
