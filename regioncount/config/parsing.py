"""From a composed or recorded configuration to its checked form.

A configuration comes from Hydra or from a record on disk as a nested mapping. What Hydra composed is the user's: its
interpolations such as ${oc.env:HOME} are resolved, and the plugins that it names are imported. A record may come from
anybody: it is data, in which nothing is resolved and by which nothing is imported. It may name parts of plugins that are not
at hand; these are accepted as they are recorded.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict

from regioncount import registry
from regioncount.columns import Column
from regioncount.config.schemas import MeasuringConfig, Regions, RunConfig, Snapshots, Stop, SweepOptions
from regioncount.config.values import plain, validated
from regioncount.data.sources import DatasetOptions
from regioncount.data.subspaces import SubspaceOptions
from regioncount.errors import InputError
from regioncount.models import kinds
from regioncount.options import shown, validate_options
from regioncount.regions.methods import EXACT_METHODS, exact_scope

SWEEP_NAME = r"(?!\.)[\w.-]+"  # one part of a path, as are the names of subspaces
SWEEP_ONLY_GROUPS = ("sweep", "hydra", "experiment", "scale", "grid")  # of a composed configuration
TARGETS = ("generalization_gap", "test_error", "test_accuracy")

# Records hold every kind's options for each subspace.
OTHER_KINDS_OPTIONS = ("dimension", "scale", "start", "stop")

AnyConfig = TypeVar("AnyConfig", RunConfig, MeasuringConfig)


class RecordedDataset(DatasetOptions):
    """A recorded data set of a plugin that is not at hand."""

    model_config = ConfigDict(extra="allow")


class RecordedSubspace(SubspaceOptions):
    """A recorded subspace of a plugin that is not at hand."""

    model_config = ConfigDict(extra="allow")


def parse_run(composed: DictConfig | Mapping[str, Any], *, recorded: bool = False) -> RunConfig:
    """Return the checked configuration of a run.

    Args:
        composed: The configuration as Hydra composed it, or as `as_mapping` gave it.
        recorded: Whether it was read from disk. Then parts that are not registered are accepted as they are.

    Raises:
        InputError: An option is unknown, missing or wrong.
    """
    mapping = _options_of_a_run(composed)
    plugins = _load_plugins(mapping, recorded)
    model = _parse_part(registry.models, mapping.get("model"), "model", recorded)
    if recorded and not kinds.is_importable(model):
        in_epochs = bool(mapping.get("optimizer"))
    else:
        in_epochs = kinds.trained_in_epochs(model)
    if in_epochs:
        parts = ((registry.optimizers, "optimizer"), (registry.schedules, "schedule"))
        mapping |= {group: _parse_part(table, mapping.get(group), group, recorded) for table, group in parts}
    else:
        mapping = _without_training(mapping)
    config = _parse_rest(RunConfig, mapping | {"model": model, "plugins": plugins}, recorded)
    if not in_epochs:
        if config.seed >= 2**32:
            raise InputError(f"seed={config.seed}: model={model['name']} takes seeds below 2^32")
        config.batch_size = config.epochs = 0
    for epoch in config.snapshots.epochs:
        if epoch > config.epochs:
            raise InputError(f"snapshots.epochs={epoch}: give at most {config.epochs}, the last epoch")
    if not recorded and config.tracker.mode not in registry.trackers:
        raise InputError(registry.unknown_choice("tracker.mode", config.tracker.mode, registry.trackers.names()))
    return config


def parse_measuring(composed: DictConfig | Mapping[str, Any]) -> MeasuringConfig:
    """Return the checked configuration of measurements.

    Args:
        composed: The configuration as Hydra composed it.

    Raises:
        InputError: An option is unknown, missing or wrong.
    """
    mapping = _options_of_a_run(composed)
    plugins = _load_plugins(mapping, recorded=False)
    if mapping.get("run") is None:
        mapping["model"] = _parse_part(registry.models, mapping.get("model"), "model", recorded=False)
    config = _parse_rest(MeasuringConfig, mapping | {"plugins": plugins}, recorded=False)
    if (config.run is None) == (config.checkpoint is None):
        raise InputError("give either run=DIR or checkpoint=FILE with its model=... and dataset=...")
    if config.run is None and not kinds.trained_in_epochs(config.model):
        raise InputError(f"checkpoint={config.checkpoint}: model={config.model['name']} has no weights; give run=DIR")
    if isinstance(config.snapshots, str):
        if config.snapshots not in ("none", "all"):
            raise InputError(registry.unknown_choice("snapshots", config.snapshots, ("none", "all")))
    elif not (isinstance(config.snapshots, list) and all(type(e) is int and e >= 0 for e in config.snapshots)):
        raise InputError(f"snapshots={config.snapshots}: give none, all, or a list of epochs such as [0,10,20]")
    return config


def parse_sweep(composed: DictConfig | Mapping[str, Any], config: RunConfig) -> SweepOptions:
    """Return the checked options of a sweep.

    Args:
        composed: The group `sweep` as Hydra composed it, or as it was recorded.
        config: The configuration of the sweep's first run.

    Raises:
        InputError: An option is unknown or wrong.
    """
    sweep = validated(SweepOptions, plain(composed, "sweep"), "sweep")
    if sweep.name is not None and not re.fullmatch(SWEEP_NAME, sweep.name):
        raise InputError(f"sweep.name={sweep.name}: use letters, digits, dashes, underscores and dots")
    if sweep.budget <= 0:
        raise InputError(f"sweep.time_budget={sweep.time_budget}: give a time above 0, such as 90s, 20m or 8h")
    statistics = ("region_count", "region_entropy")
    measured = [Column(statistic, name).key for statistic in statistics for name in config.regions.subspaces]
    measured += [name for name in config.measures if name not in ("accuracy", "seed_agreement")]
    for option, columns, choices in (
        ("sweep.regression", sweep.regression, measured),
        ("sweep.targets", sweep.targets, [*TARGETS, *measured]),
    ):
        for column in columns:
            if column not in choices:
                raise InputError(registry.unknown_choice(option, column, choices))
    return sweep


def parse_dataset(recorded: Mapping[str, Any], changes: Sequence[str] = ()) -> DatasetOptions:
    """Return the checked data set of a run's record, changed by overrides such as "dataset.root=DIR".

    Raises:
        InputError: The data set is unknown, or an option is wrong.
    """
    given = OmegaConf.from_dotlist([change.removeprefix("dataset.") for change in changes])
    options = plain(recorded, "dataset") | plain(cast(DictConfig, given), "dataset")
    return cast(DatasetOptions, _validated_part(registry.datasets, options, "dataset", options.get("name"), None))


def parse_model(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's name and options from a run's record; the options are checked when the model is built.

    Raises:
        InputError: The record has no model, or one of a plugin that the command line does not name.
    """
    model = _named(plain(recorded, "model"), "model")
    if not kinds.is_importable(model):
        if "_target_" in model:
            module = str(model["_target_"]).rpartition(".")[0]
            raise InputError(f"model._target_={model['_target_']}: pass plugins=[{module}] to import it")
        raise InputError(registry.unknown_choice("model", model["name"], registry.models.names()))
    return model


def require_plugins(record: Mapping[str, Any]) -> None:
    """Check that the plugins which supplied a recorded run's model and data are at hand, and have not changed.

    Args:
        record: The run's configuration as it was recorded.

    Raises:
        InputError: A plugin is to be named on the command line, or its source differs from the one recorded.
    """
    sources = record.get("plugin_sources")
    for part in ("model", "dataset"):
        source = sources.get(part) if isinstance(sources, Mapping) else None
        if not isinstance(source, str):
            continue
        plugin = source.partition(":")[0]
        if not registry.is_loaded(plugin):
            raise InputError(f"{part}: the plugin {plugin} supplied it; pass plugins=[{plugin}]")
        if registry.plugin_source(plugin) != source:
            raise InputError(
                f"plugins=[{plugin}]: its source has changed since the run was trained; restore it or train again"
            )


def _options_of_a_run(composed: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the groups that make a grid."""
    return {key: value for key, value in plain(composed).items() if key not in SWEEP_ONLY_GROUPS}


def _load_plugins(mapping: dict[str, Any], recorded: bool) -> list[str]:
    names = mapping.get("plugins") or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InputError(f"plugins={shown(names)}: give a list of modules, such as [my_module]")
    if recorded:
        return []
    registry.load_plugins(names)
    return names


def _named(options: object, group: str) -> dict[str, Any]:
    """Return a group of options, those that are None left out; it must have a name."""
    if not isinstance(options, Mapping):
        raise InputError(f"{group}={shown(options)}: give options by name")
    given = {key: value for key, value in options.items() if value is not None}
    if isinstance(target := given.get("_target_"), str):
        given["name"] = target.rpartition(".")[2]
    if not isinstance(given.get("name"), str):
        raise InputError(f"{group}.name is missing: choose one of configs/{group}, for example on the command line")
    return given


def _parse_part(table: registry.Registry, options: object, group: str, recorded: bool) -> dict[str, Any]:
    """Return the name of a model, optimizer or schedule with the options that were given."""
    given = _named({} if options is None else options, group)
    if table is registry.models and recorded and not kinds.is_importable(given):
        return given
    if table is not registry.models and recorded and given["name"] not in table:
        return given
    entry = kinds.entry(given) if table is registry.models else table[given["name"]]
    own = {key: value for key, value in given.items() if key not in ("name", "_target_")}
    checked = validate_options(entry, own, group)
    named = {key: given[key] for key in ("name", "_target_") if key in given}
    if table is registry.optimizers:
        own = {"weight_decay": 0.0} | own
        own |= {key: float(own[key]) for key in ("learning_rate", "weight_decay")}
        return named | own
    return named | {key: value for key, value in own.items() if key in type(checked).model_fields}


def _validated_part(
    table: registry.Registry, options: Mapping[str, Any], group: str, name: object, unknown: type[Any] | None
) -> Any:
    """Return the options of a data set or subspace as their model; `unknown` is that of a part that is not registered."""
    entry = table.get(name) if isinstance(name, str) else None
    if entry is None and unknown is not None and isinstance(name, str):
        entry = registry.Entry(name, "", unknown)
    if entry is None:
        option = "dataset" if table is registry.datasets else f"{group}.kind"
        raise InputError(registry.unknown_choice(option, shown(name), table.names()))
    return validate_options(entry, options, group)


def _parse_rest(schema: type[AnyConfig], mapping: dict[str, Any], recorded: bool) -> AnyConfig:
    """Return a configuration whose data set, subspaces and measures are checked too."""
    dataset = plain(mapping.get("dataset") or {"name": "digits"}, "dataset")
    unknown = RecordedDataset if recorded else None
    options = _validated_part(registry.datasets, dataset, "dataset", dataset.get("name", "digits"), unknown)
    regions = mapping.get("regions") or {}
    if not isinstance(regions, dict):
        raise InputError(f"regions={shown(regions)}: name subspaces of configs/regions, for example regions=[line]")
    settings = {key: regions[key] for key in ("seed", "method", "budget", "connectivity") if key in regions}
    subspaces = {name: _parse_subspace(name, regions[name], recorded) for name in regions if name not in settings}
    checked = validated(schema, mapping | {"dataset": options, "regions": settings | {"subspaces": subspaces}})
    _check_exact(checked.regions)
    if recorded:
        if strange := [name for name in checked.measures if not re.fullmatch(r"\w+", name)]:
            raise InputError(f"measures={shown(strange[0])}: no name of a measure")
        return checked
    table = registry.measures
    if "all" in checked.measures:
        checked.measures = [name for name in table.names() if not table[name].traits.get("on_request")]
    for name in checked.measures:
        table[name]
    checked.plugin_sources = _plugin_sources(checked)
    return checked


def _parse_subspace(name: str, value: object, recorded: bool) -> SubspaceOptions:
    where = f"regions.{name}"
    if not isinstance(value, dict):
        raise InputError(f"{where}={shown(value)}: no such option, and no subspace with options of its own")
    if not re.fullmatch(SWEEP_NAME, name):  # figures are named after it
        raise InputError(f"{where}: use letters, digits, dashes, underscores and dots for a subspace's name")
    options = {"kind": "simplex"} | value
    entry = registry.subspaces.get(options["kind"]) if isinstance(options["kind"], str) else None
    if recorded and entry is not None:
        own = type(validate_options(entry, {"kind": entry.name}, where)).model_fields
        options = {key: item for key, item in options.items() if key in own or key not in OTHER_KINDS_OPTIONS}
    unknown = RecordedSubspace if recorded else None
    subspace = _validated_part(registry.subspaces, options, where, options["kind"], unknown)
    if entry is not None and entry.plugin:  # a report knows what is recorded alone
        subspace = subspace.model_copy(update={"resolution": subspace.points_per_axis})
    return subspace


def _check_exact(regions: Regions) -> None:
    method, budget = regions.method, regions.budget
    if budget is not None and method not in EXACT_METHODS:
        raise InputError(f"regions.budget={budget}: give it with regions.method=exact or bounds")
    for name, subspace in regions.subspaces.items():
        dimension = subspace.dimension_counted
        if method in EXACT_METHODS and dimension > EXACT_METHODS[method]:
            raise InputError(
                f"regions.{name}: regions.method={method} counts {exact_scope(method)}; leave this subspace out, "
                "or pass regions.method=auto"
            )
        if dimension > 1 and budget is not None:
            raise InputError(f"regions.{name}: regions.budget={budget} applies to lines; leave one of them out")


def _without_training(mapping: dict[str, Any]) -> dict[str, Any]:
    """Reset the options that do not apply to a model that is fitted at once."""
    reset = {"optimizer": {}, "schedule": {}, "stop": Stop(), "snapshots": Snapshots(), "augmentation": "none"}
    return mapping | reset | {"batch_size": 1, "epochs": 1, "device": "cpu", "precision": "float32", "compile": False}


def _plugin_sources(config: RunConfig | MeasuringConfig) -> dict[str, str]:
    """Return which plugin supplies which part, as "module:hash"."""
    entries = {"dataset": registry.datasets[config.dataset.name]}
    if config.model:
        entries["model"] = kinds.entry(config.model)
    if isinstance(config, RunConfig) and config.optimizer:
        entries["optimizer"] = registry.optimizers[config.optimizer["name"]]
        entries["schedule"] = registry.schedules[config.schedule["name"]]
    entries |= {f"regions.{name}": registry.subspaces[s.kind] for name, s in config.regions.subspaces.items()}
    entries |= {f"measures.{name}": registry.measures[name] for name in config.measures}
    return {part: registry.plugin_source(entry.plugin) for part, entry in entries.items() if entry.plugin}
