"""Hydra's entry point to `regioncount.sweeps`: `hydra/sweeper=regioncount`, the default of configs/sweep.yaml.

Hydra finds sweepers only in the namespace package `hydra_plugins` and imports this module whenever it starts, so slow
imports are inside `sweep`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from regioncount.runs.plans import Plan


@dataclass
class RegionCountSweeperConfig:
    """The options of `hydra.sweeper`. As in the basic sweeper, `params` maps options to values such as "0.1,0.01".

    `cell_options` are overrides of the command line that `regioncount.sweeps.cell_options` has moved here.
    """

    _target_: str = "hydra_plugins.regioncount_sweeper.RegionCountSweeper"
    params: dict[str, str] | None = field(default_factory=dict)
    cell_options: list[str] = field(default_factory=list)


ConfigStore.instance().store(
    group="hydra/sweeper", name="regioncount", node=RegionCountSweeperConfig, provider="regioncount"
)


class RegionCountSweeper(Sweeper):
    """Check every cell of a grid, launch the cells through the configured launcher, and write the report."""

    def __init__(self, params: Mapping[str, str] | None = None, cell_options: Sequence[str] = ()) -> None:
        self.params = dict(params or {})
        self.cell_options = list(cell_options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store Hydra's objects; `sweep` creates the launcher, once the sweep's directory is known."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> "tuple[Plan, int]":
        """Run the sweep.

        Args:
            arguments: The overrides of the command line, without those of Hydra itself.

        Returns:
            The plan of the sweep and the exit status, as `run_sweep`.
        """
        from regioncount.sweeps.launch import run_sweep

        assert self.config is not None  # Hydra has called setup
        assert self.hydra_context is not None
        return run_sweep([*arguments, *self.cell_options], self.params, self.config, self.hydra_context, self.task_function)
