"""Plan a sweep from a command line's overrides, without running it."""

from collections.abc import Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from regioncount.composition import compose, hydra_ready
from regioncount.runs.plans import Plan
from regioncount.sweeps.grid import plan_sweep


def make_plan(overrides: Sequence[str]) -> Plan:
    """Return the plan that sweep.py makes for these overrides."""
    with hydra_ready():
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        config = compose("sweep", [o.input_line for o in parsed if not o.is_sweep_override()], with_hydra=True)
        arguments = [o.input_line for o in parsed if not o.is_hydra_override()]
        return plan_sweep(arguments, config.hydra.sweeper.params, config, GlobalHydra.instance().config_loader())[0]
