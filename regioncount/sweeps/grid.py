"""The grid of a sweep: split the overrides into cells, compose and check every cell, and plan the sweep."""

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from regioncount import registry
from regioncount.columns import is_reserved
from regioncount.config import parse_run, parse_sweep
from regioncount.config.training import refuse_epoch_options
from regioncount.errors import InputError
from regioncount.models.kinds import trained_in_epochs
from regioncount.reporting import published
from regioncount.runs import runner
from regioncount.runs.environment import environment
from regioncount.runs.identity import identity_of
from regioncount.runs.measurements import measurement_settings
from regioncount.runs.plans import DataFacts, Plan, PlannedRun
from regioncount.runs.prepared import PreparedRun
from regioncount.sweeps.cell_options import OPTION, CellError

Cell = list[Override]

# Options whose values tables of runs always show, in columns named after the last part of the option.
OPTIONS_WITH_COLUMNS = (
    *("seed", "batch_size", "dataset", "model", "optimizer.learning_rate", "optimizer.weight_decay", "precision"),
)


def plan_sweep(
    arguments: Sequence[str], params: Mapping[str, str], config: DictConfig, loader: ConfigLoader
) -> tuple[Plan, list[Cell], list[PreparedRun]]:
    """Check every cell of the grid and plan its run.

    Args:
        arguments: Overrides of the command line, such as "seed=0,1". They replace entries of `params`.
        params: The experiment's grid: the values of each option, such as "0.1,0.01".
        config: The sweep's configuration as Hydra composed it, including the node `hydra`.
        loader: Hydra's configuration loader, which composes the cells.

    Returns:
        The plan, and for each of its cells the overrides and the prepared run.

    Raises:
        CellError: Hydra cannot compose a cell.
        InputError: A cell is invalid (the message names it), or two cells are the same.
    """
    cells = split_grid(arguments, params, loader)
    composed = compose_cells(cells, config, loader)
    prepared_runs = [_prepare(cell, cell_config) for cell, cell_config in zip(cells, composed, strict=True)]
    options = parse_sweep(config.sweep, prepared_runs[0].config)
    if not any(trained_in_epochs(prepared.config.model) for prepared in prepared_runs):
        refuse_epoch_options(arguments, prepared_runs[0].config.model["name"])
    if config.tracker.group is not None:
        raise InputError(f"tracker.group={config.tracker.group}: a sweep groups its runs by its own name; pass sweep.name")
    if config.tracker.mode.startswith("wandb") and os.environ.get("WANDB_SWEEP_ID"):
        raise InputError(
            "WANDB_SWEEP_ID is set: a trial of W&B's agent is one run of W&B; use train.py, or unset the variable"
        )
    subspaces = [name for prepared in prepared_runs for name in prepared.config.regions.subspaces]
    published.check(options.published, [*loader.get_group_options("regions"), *subspaces, *registry.measures])

    content = [[prepared.identity, measurement_settings(prepared.config, prepared.dataset)] for prepared in prepared_runs]
    first: dict[str, int] = {}
    for number, entry in enumerate(content):
        if (earlier := first.setdefault(json.dumps(entry), number)) != number:
            raise InputError(_describe_repetition(cells[earlier], cells[number]))
    grid_hash = identity_of({"grid": sorted(content, key=json.dumps)})[:8]
    choices = config.hydra.runtime.choices
    experiment = choices.get("experiment")
    name = options.name or "-".join(filter(None, (experiment or "sweep", choices.get("scale")))).replace("/", "-")
    plan = Plan(
        name,
        Path(prepared_runs[0].config.results) / "sweeps" / f"{name}-{grid_hash}",
        [planned_run(prepared, varied) for prepared, varied in zip(prepared_runs, _varied_options(cells), strict=True)],
        [*arguments, *(line for line in config.hydra.overrides.hydra if not line.startswith(("hydra.mode=", f"{OPTION}=")))],
        experiment,
        environment(prepared_runs[0].device, prepared_runs[0].precision),
        options,
    )
    return plan, cells, prepared_runs


def split_grid(arguments: Sequence[str], params: Mapping[str, str], loader: ConfigLoader) -> list[Cell]:
    """Return the cells of a grid, the product of the values of all options. The first option varies slowest."""
    parser = OverridesParser.create(config_loader=loader)
    values: dict[str, list[Override]] = {}
    for override in parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *arguments]):
        key = override.get_key_element()
        if override.is_interval_sweep():
            raise InputError(f"the grid: {override.input_line} is an interval; list its values, or use range(...)")
        is_sweep = override.is_sweep_override()
        texts = override.sweep_string_iterator() if is_sweep else [override.get_value_element_as_str()]
        values[key] = parser.parse_overrides([f"{key}={text}" for text in texts])
    if chosen := next((key for key in ("experiment", "scale") if len(values.get(key, ())) > 1), None):
        raise InputError(f"the grid: choose one {chosen}; an experiment has a grid of its own")
    if empty := [key for key, choices in values.items() if not choices]:
        raise InputError(f"the grid: {empty[0]} has no values")
    return [list(cell) for cell in itertools.product(*values.values())]


def compose_cells(cells: list[Cell], config: DictConfig, loader: ConfigLoader) -> Iterator[DictConfig]:
    """Yield the configuration that Hydra composes for each cell, without the node `hydra`.

    Hydra takes 0.1 s to compose a configuration from its files. Cells that choose the same files are therefore composed
    once, and the options that vary among them are set afterwards, as Hydra sets them. They are set in place: read a
    configuration before the next one.

    Raises:
        CellError: An override is invalid.
    """

    def compose(overrides: Sequence[str]) -> DictConfig:
        composed = loader.load_sweep_config(config, list(overrides))
        with open_dict(composed):
            del composed["hydra"]
        return composed

    settable = _settable_options(cells, config, loader)
    compositions: dict[tuple[str, ...], DictConfig] = {}
    for cell in cells:
        files = tuple(lines([o for o in cell if o.get_key_element() not in settable]))
        try:
            if files not in compositions:
                compositions[files] = compose(files)
            composed = compositions[files]  # every cell sets the same options, so it need not be copied
            for override in cell:
                if override.get_key_element() in settable:
                    key, value = override.key_or_group, override.value()
                    OmegaConf.update(composed, key, value, merge=True, force_add=override.is_force_add())
        except (HydraException, OmegaConfBaseException):
            try:
                composed = compose(lines(cell))  # Hydra's message names the override
            except (HydraException, OmegaConfBaseException) as error:
                keys = _varying_keys(cells)
                varying = lines([override for override in cell if override.get_key_element() in keys])
                raise CellError(lines(cell), varying) from error
        yield composed


def lines(cell: Cell) -> list[str]:
    """Return a cell's overrides in the form of the command line."""
    return [str(override.input_line) for override in cell]


def _settable_options(cells: list[Cell], config: DictConfig, loader: ConfigLoader) -> set[str]:
    """Return the varying options that can be set after the composition with the same result as in Hydra.

    Config groups, additions (+) and deletions (~) are excluded. So are options that overlap with another override of
    the cell, because Hydra applies overrides in order, and mappings, which are merged with the value that is there.
    """
    name, overrides = config.hydra.job.config_name, list(config.hydra.overrides.hydra)

    def is_group(override: Override) -> bool:
        return bool(loader.get_group_options(override.key_or_group, None, name, overrides))

    options = [override for override in cells[0] if not is_group(override)]
    mappings = {option.get_key_element() for cell in cells for option in cell if isinstance(option.value(), dict)}
    varying = set(_varying_keys(cells)) - mappings
    settable = set()
    for option in options:
        others = [f"{other.key_or_group}." for other in options if other is not option]
        path = f"{option.key_or_group}."
        overlaps = any(path.startswith(other) or other.startswith(path) for other in others)
        plain = option.package is None and not option.is_add() and not option.is_delete()
        if option.get_key_element() in varying and plain and not overlaps:
            settable.add(option.get_key_element())
    return settable


def _varying_keys(cells: list[Cell]) -> list[str]:
    """Return the keys of the overrides that differ between cells, in order."""
    return [options[0].get_key_element() for options in zip(*cells, strict=True) if len(set(lines(list(options)))) > 1]


def _varied_options(cells: list[Cell]) -> list[dict[str, str]]:
    """Return the values of the varying options of each cell, by their columns in tables of runs."""
    # The column is the last part of the option's name, or the full name if the last part has another meaning.
    measures = registry.measures.names()
    options = [dict(line.split("=", 1) for line in lines(cell)) for cell in cells]
    columns: dict[str, str] = {}
    for key in _varying_keys(cells):
        option = key.lstrip("+~")
        name = option.split(".")[-1]
        has_own_column = option in OPTIONS_WITH_COLUMNS
        ambiguous = name in columns.values() or name in measures or (is_reserved(name) and not has_own_column)
        columns[key] = option if ambiguous else name
    return [{column: option[key] for key, column in columns.items()} for option in options]


def _describe_repetition(cell: Cell, other: Cell) -> str:
    """Return the message for two cells that train and measure the same."""
    pairs = zip(lines(cell), lines(other), strict=True)
    different = next((f"{one} and {two.partition('=')[2]}" for one, two in pairs if one != two), "")
    return f"the grid contains the same run twice: {different or lines(cell)} train and measure the same; keep one of them"


def _prepare(cell: Cell, composed: DictConfig) -> PreparedRun:
    try:
        return runner.prepare(parse_run(composed))
    except InputError as error:
        raise InputError(f"{error} (in the cell {' '.join(lines(cell))})") from error


def planned_run(prepared: PreparedRun, varied: dict[str, str]) -> PlannedRun:
    """Return the run of a cell, given the values of the options that the sweep varies."""
    data = prepared.dataset
    facts = DataFacts(data.name, data.fingerprints, data.classes, len(data.train), len(data.test))
    return PlannedRun(prepared.identity, prepared.name, varied, prepared.config, facts, prepared.precision)
