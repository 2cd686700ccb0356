"""The best trial of a search by Optuna's sweeper is printed."""

import pytest
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from regioncount.composition import hydra_ready

ONE = "name: optuna\nbest_params:\n  optimizer.learning_rate: 0.25\n  model: mlp\nbest_value: 0.125\n"
SEVERAL = "name: optuna\nsolutions:\n- params: {}\n  values: [1, 2]\n"


@pytest.mark.parametrize(
    ("content", "printed"),
    [
        (ONE, "best: test error 12.50% with optimizer.learning_rate=0.25 model=mlp ({})\n"),
        (SEVERAL, ""),
        (None, ""),
    ],
)
def test_the_best_options_are_printed_at_the_end(tmp_path, capsys, content, printed):
    results = tmp_path / "optimization_results.yaml"
    if content is not None:
        results.write_text(content)
    with hydra_ready():
        application = GlobalHydra.instance().hydra
        options = ["hydra/sweeper=basic", f"hydra.sweep.dir={tmp_path}"]
        config = application.compose_config("sweep", options, RunMode.MULTIRUN, with_log_configuration=False)
        Callbacks(config).on_multirun_end(config=config, config_name="sweep")
    assert capsys.readouterr().out == printed.format(results)
