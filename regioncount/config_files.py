"""The configuration files: where they are, their groups, and the choices of a group."""

from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# In a wheel, the configuration files are inside the package; in a checkout, they are beside it.
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"

LAUNCHERS = ("basic", "parallel", "joblib", "submitit_local", "submitit_slurm")
"""The documented choices of hydra/launcher."""


def group_names(folders: Sequence[Path] = (CONFIGS,)) -> list[str]:
    """Return the names of the config groups, without Hydra's own."""
    names = {path.name for folder in folders for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"}
    return sorted(names - {"hydra"})


def group_choices(group: str, folders: Sequence[Path] = (CONFIGS,)) -> list[str]:
    """Return the choices of a config group, without files whose names begin with _, which only others include.

    Args:
        group: The group, a folder such as "experiment".
        folders: The directories of configuration files.
    """
    paths = [path.relative_to(folder / group) for folder in folders for path in (folder / group).rglob("*.yaml")]
    return sorted({path.with_suffix("").as_posix() for path in paths if path.name[0] != "_"})


def search_folders(overrides: Sequence[str]) -> list[Path]:
    """Return the directories of configuration files: `CONFIGS`, and those that an override of hydra.searchpath names."""
    given = next((override for override in reversed(overrides) if override.startswith("hydra.searchpath=")), "")
    paths = given.partition("=")[2].strip("[]").split(",")
    folders = [Path(path.strip("'\"").removeprefix("file://").replace("\\'", "'")) for path in paths]
    return [CONFIGS, *(folder for folder, path in zip(folders, paths, strict=True) if path and folder.is_dir())]
