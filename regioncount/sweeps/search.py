"""What a search of another sweeper, such as `hydra/sweeper=optuna`, has found."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from regioncount.errors import say


class PrintBest(Callback):
    """Print the best test error of a search and its options, which Optuna's sweeper only writes to a file."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print a line if there is a file of results with one best value."""
        path = Path(config.hydra.sweep.dir) / "optimization_results.yaml"
        results = OmegaConf.load(path) if path.is_file() else None
        if isinstance(results, DictConfig) and {"best_value", "best_params"} <= set(results):
            options = " ".join(f"{name}={value}" for name, value in results.best_params.items())
            say(f"best: test error {results.best_value:.2%} with {options} ({path})")
