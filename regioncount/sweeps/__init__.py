"""Sweeps: grids of runs that are checked as a whole, launched through Hydra, and reported.

cell_options.py passes options to the cells alone, grid.py turns the command line into a plan, launch.py runs the plan, and
cell.py is the job for one cell.
"""

from omegaconf import DictConfig


def run_cell(config: DictConfig) -> str | float:
    """Train and measure one cell: the task function that Hydra's launchers call. See `regioncount.sweeps.cell.run`."""
    from regioncount.sweeps import cell  # imports torch, which is slow and not needed to check the command line

    return cell.run(config)
