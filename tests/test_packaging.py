"""The wheel contains everything that the installed commands need."""

import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parent.parent
COMMANDS = ("train", "measure", "sweep", "report", "analysis")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel of this checkout and open it."""
    if (uv := shutil.which("uv")) is None:
        pytest.skip("uv is not installed")
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([uv, "build", "--wheel", "--out-dir", out, REPOSITORY], check=True, capture_output=True)
    with zipfile.ZipFile(*out.glob("*.whl")) as archive:
        yield archive


def test_the_wheel_contains_the_package_its_configurations_and_its_hydra_plugins(wheel):
    names = set(wheel.namelist())
    for folder, inside in (
        ("regioncount", "regioncount"),
        ("hydra_plugins", "hydra_plugins"),
        ("configs", "regioncount/configs"),
    ):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{inside}/{path.relative_to(REPOSITORY / folder)}" in names
    assert "regioncount/py.typed" in names
    assert "hydra_plugins/__init__.py" not in names  # a namespace package, shared with the plugins of other packages
    assert {name.split("/")[0] for name in names} == {"regioncount", "hydra_plugins", "regioncount-0.1.0.dist-info"}


def test_the_wheel_installs_the_commands(wheel):
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {f"regioncount-{name}" for name in COMMANDS}
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(entry_points).decode()
    assert all(f"{name} = {function}" in text for name, function in scripts.items())
