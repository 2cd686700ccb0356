"""Plan a sweep from a command line's overrides, without running it."""

from collections.abc import Sequence
from functools import partial

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from regioncount.composition import hydra_ready, one_line_errors
from regioncount.config_files import group_names
from regioncount.runs.plans import Plan
from regioncount.sweeps.cell_options import pass_to_cells
from regioncount.sweeps.grid import plan_sweep


def make_plan(overrides: Sequence[str]) -> Plan:
    """Return the plan that sweep.py makes for these overrides."""
    with hydra_ready(), one_line_errors("sweep", overrides):
        application = GlobalHydra.instance().hydra
        compose_sweep = partial(application.compose_config, "sweep", run_mode=RunMode.MULTIRUN)
        config = compose_sweep(pass_to_cells(overrides, group_names(), compose_sweep))
        task = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # as in Hydra
        arguments = [*task, *config.hydra.sweeper.cell_options]
        return plan_sweep(arguments, config.hydra.sweeper.params, config, application.config_loader)[0]
