"""A run that has been checked and can be trained."""

from dataclasses import dataclass
from pathlib import Path

import torch

from regioncount.config import RunConfig
from regioncount.data.dataset import Dataset
from regioncount.runs import store
from regioncount.runs.store import Run


@dataclass(frozen=True)
class PreparedRun:
    """A checked configuration with its data, its hardware, and the name and identity of its run."""

    config: RunConfig
    dataset: Dataset
    device: torch.device
    precision: str
    compiled: bool
    name: str
    identity: str

    @property
    def results(self) -> Path:
        """The results directory."""
        return Path(self.config.results)

    @property
    def directory(self) -> Path:
        """The directory of the run once its training has ended."""
        return store.run_directory(self.results, self.name, self.identity)

    def find_run(self) -> Run | None:
        """Return the run if its training has ended; see `store.find`."""
        return store.find(self.results, self.name, self.identity)
