"""Options of the command line that the cells of a sweep have, but not its own configuration.

In `schedule=step,growing_batch schedule.step_size=10`, every cell has this option. Hydra composes the configuration of the
sweep itself without the values of a grid, so with another schedule. Such options bypass that configuration.
"""

from collections.abc import Callable, Container, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

OPTION = "hydra.sweeper.cell_options"


class CellError(HydraException):
    """Hydra cannot compose a cell of a sweep; the cause is its error.

    Args:
        cell: All overrides of the cell.
        varying: Those that distinguish it from other cells.
    """

    def __init__(self, cell: Sequence[str], varying: Sequence[str]) -> None:
        super().__init__(f"the cell {' '.join(cell)} cannot be composed")
        self.cell = list(cell)
        self.varying = list(varying)


def pass_to_cells(overrides: Sequence[str], groups: Container[str], compose: Callable[[list[str]], DictConfig]) -> list[str]:
    """Move options of a group whose choice the grid sets, such as the schedule, to `OPTION`, if the sweep itself lacks them.

    The sweeper checks them in each cell.

    Args:
        overrides: The overrides of the command line.
        groups: The names of the config groups.
        compose: A function that composes the configuration of the sweep, with the node `hydra`, from overrides.

    Returns:
        The overrides for the sweep itself.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    moved = [
        override
        for override in parsed
        if _is_plain_option(override) and "." in override.key_or_group and _group(override) in groups
    ]
    if not moved:
        return list(overrides)
    config = compose([str(override.input_line) for override in parsed if override not in moved])
    if not str(config.hydra.sweeper._target_).endswith(".RegionCountSweeper"):
        return list(overrides)
    single = {override.key_or_group for override in parsed if not override.is_sweep_override()}
    grid = {*map(str, config.hydra.sweeper.params or ()), *(override.key_or_group for override in parsed)} - single
    moved = [override for override in moved if _group(override) in grid and not _has(config, override.key_or_group)]
    if not moved:
        return list(overrides)
    kept = [str(override.input_line) for override in parsed if override not in moved]
    texts = [_quoted(str(override.input_line)) for override in moved]
    return [*kept, f"{OPTION}=[{','.join(texts)}]"]


def _is_plain_option(override: Override) -> bool:
    """Return whether an override sets one option of the configuration to one value."""
    changes_structure = override.is_add() or override.is_force_add() or override.is_delete() or override.package is not None
    return not (changes_structure or override.is_sweep_override())


def _group(override: Override) -> str:
    return override.key_or_group.partition(".")[0]


def _has(config: DictConfig, option: str) -> bool:
    node: Any = OmegaConf.to_container(config, resolve=False)
    for part in option.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _quoted(text: str) -> str:
    """Return a text as a string in Hydra's grammar, in which references to other options are not resolved."""
    return QuotedString(text.replace("${", "\\${"), Quote.single).with_quotes()
