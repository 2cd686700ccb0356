"""Completion of options and choices in bash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regioncount.completion import candidates, shell_completion
from regioncount.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train.py model=res", ["model=resnet18", "model=resnet34"]),
        ("python train.py experiment=paper/ada", ["experiment=paper/adagrad", "experiment=paper/adam"]),
        ("uv run ./train.py --experiment=th", ["--experiment=theory/points", "--experiment=theory/two_layer"]),
        ("regioncount-train optimizer.lea", ["optimizer.learning_rate="]),
        ("train.py optimizer=sam optimizer.rh", ["optimizer.rho="]),
        ("train.py optimizer.rh", []),
        ("train.py optimizer.nonsense=3 optimizer=sam optimizer.rh", ["optimizer.rho="]),
        ("train.py regions=[line,pl", ["regions=[line,plane"]),
        ("sweep.py model=mlp,resnet3", ["model=mlp,resnet34"]),
        ("sweep.py sweep.time", ["sweep.time_budget="]),
        ("sweep.py hydra/launcher=jo", ["hydra/launcher=joblib"]),
        ("train.py precision=b", ["precision=bfloat16"]),
        ("train.py model.stem=i", ["model.stem=imagenet"]),
        ("train.py measures=[acc", ["measures=[accuracy"]),
        ("train.py --config-d", ["--config-dir="]),
        ("train.py results=re", []),
        ("measure.py run", ["run="]),
    ],
)
def test_the_last_word_is_completed(line, expected):
    name = next(command for command in ("train", "measure", "sweep") if command in line)
    assert candidates(name, line) == expected


def test_nothing_typed_lists_groups_and_options():
    listed = candidates("train", "train.py ")
    assert {"experiment=", "model=", "epochs=", "optimizer.momentum="} <= set(listed)
    assert candidates("train", "train.py -m model=mlp sweep.na") == ["sweep.name="]


def test_only_bash_is_supported():
    with pytest.raises(InputError, match="only bash is supported; write install=bash"):
        shell_completion("train", "install=fish")


def test_the_flag_completes_the_line_of_the_shell():
    environment = {**os.environ, "COMP_LINE": "train.py experiment=quXXX", "COMP_POINT": "22"}
    command = [sys.executable, str(REPOSITORY / "train.py"), "-sc", "query=bash"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout == "experiment=quickstart\n"


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="no bash")
@pytest.mark.parametrize(("breaks", "expected"), [(" =:", "resnet34"), (" ", "model=resnet34")])
def test_bash_completes_with_the_installed_function(tmp_path, breaks, expected):
    # The completed command asks itself: here, a script that prints the line it is asked for.
    program = tmp_path / "train.py"
    program.write_text('#!/bin/bash\n[ "$*" = "--shell-completion query=bash" ] && echo "${COMP_LINE##* }snet34"\n')
    program.chmod(0o755)
    line = f"{program} model=re"
    script = shell_completion("train", "install=bash")
    script += f"\nCOMP_WORDBREAKS='{breaks}' COMP_LINE='{line} epochs=3' COMP_POINT={len(line)}\n"
    script += '_regioncount_completion; printf "%s\\n" "${COMPREPLY[@]}"'
    shown = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout == f"{expected}\n"
    removed = (
        shell_completion("train", "install=bash") + "\n" + shell_completion("train", "uninstall=bash") + "\ncomplete -p"
    )
    left = subprocess.run(["/bin/bash", "-c", removed], capture_output=True, text=True, check=False)
    assert "_regioncount" not in left.stdout
    assert left.stderr == ""
