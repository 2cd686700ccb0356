"""Parse composed and recorded configurations into checked dataclasses.

A configuration is a nested mapping, composed by Hydra or read from a record on disk. One that Hydra composed is
trusted: interpolations such as ${oc.env:HOME} are resolved, and the plugins that it names are imported. A record is
untrusted: nothing in it is resolved or imported. It may name parts of plugins that are not loaded; these are accepted
as recorded.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from omegaconf import DictConfig
from pydantic import ConfigDict

from regioncount import registry
from regioncount.columns import PARTS, Column
from regioncount.config.datasets import validate_dataset
from regioncount.config.exact import check_exact
from regioncount.config.pretrained import with_preprocessing
from regioncount.config.schemas import MeasuringConfig, Pruning, RunConfig, Snapshots, Stop, SweepOptions, Tracking
from regioncount.config.training import check_training
from regioncount.config.values import import_advice, named_part, plain, validate
from regioncount.data import targets
from regioncount.data.subspaces import SubspaceOptions
from regioncount.errors import InputError
from regioncount.models import kinds
from regioncount.models.catalogue import MAX_SEED, asks_for_weights
from regioncount.options import abbreviate, validate_options
from regioncount.plugins import is_loaded, load_plugins, plugin_source
from regioncount.regions.methods import check_lattice
from regioncount.suggestions import unknown_choice

SWEEP_NAME = r"(?!\.)[\w.-]{1,100}"  # a single component of a path; names of subspaces match it, too
SWEEP_ONLY_GROUPS = ("sweep", "hydra", "experiment", "scale", "grid")  # groups that are not part of a run
TARGET_COLUMNS = ("generalization_gap", "test_error", "test_accuracy")

# Records may hold these options for every subspace, whatever its kind.
OTHER_KINDS_OPTIONS = ("dimension", "scale", "start", "stop")

AnyConfig = TypeVar("AnyConfig", RunConfig, MeasuringConfig)


class RecordedSubspace(SubspaceOptions):
    """A recorded subspace of a plugin that is not loaded."""

    model_config = ConfigDict(extra="allow")


def parse_run(composed: DictConfig | Mapping[str, Any], *, recorded: bool = False) -> RunConfig:
    """Return the checked configuration of a run.

    Args:
        composed: The configuration as Hydra composed it, or as `as_mapping` returned it.
        recorded: Whether it was read from disk. If so, parts that are not registered are accepted unchecked.

    Raises:
        InputError: An option is unknown, missing or invalid.
    """
    mapping = _options_of_a_run(composed)
    plugins = _load_plugins(mapping, recorded)
    model = _parse_part(registry.models, mapping.get("model"), "model", recorded)
    if recorded and not kinds.is_available(model):
        in_epochs = bool(mapping.get("optimizer"))
    else:
        in_epochs = kinds.trained_in_epochs(model)
    if in_epochs:
        parts = ((registry.optimizers, "optimizer"), (registry.schedules, "schedule"))
        mapping |= {group: _parse_part(table, mapping.get(group), group, recorded) for table, group in parts}
    else:
        mapping = _without_training(mapping)
    config = _parse_rest(RunConfig, mapping | {"model": model, "plugins": plugins}, recorded)
    if not recorded:
        config.model, config.dataset = with_preprocessing(config.model, config.dataset)
    if in_epochs:
        check_training(config)
    else:
        if config.seed > MAX_SEED:
            raise InputError(f"seed={config.seed}: model={model['name']} takes seeds up to {MAX_SEED}")
        config.batch_size = config.epochs = 0
    for epoch in config.snapshots.epochs:
        if epoch > config.epochs:
            raise InputError(f"snapshots.epochs={epoch}: the last epoch is {config.epochs}")
    return config


def parse_measuring(composed: DictConfig | Mapping[str, Any]) -> MeasuringConfig:
    """Return the checked configuration of the command measure.

    Args:
        composed: The configuration as Hydra composed it.

    Raises:
        InputError: An option is unknown, missing or invalid.
    """
    mapping = _options_of_a_run(composed)
    plugins = _load_plugins(mapping, recorded=False)
    if mapping.get("run") is None:
        mapping["model"] = _parse_part(registry.models, mapping.get("model"), "model", recorded=False)
    config = _parse_rest(MeasuringConfig, mapping | {"plugins": plugins, "batch_size": None}, recorded=False)
    _check_source(config)
    if config.run is None:
        config.model, config.dataset = with_preprocessing(config.model, config.dataset)
    if isinstance(config.snapshots, str):
        if config.snapshots not in ("none", "all"):
            raise InputError(unknown_choice("snapshots", config.snapshots, ("none", "all")))
    elif not (isinstance(config.snapshots, list) and all(type(e) is int and e >= 0 for e in config.snapshots)):
        raise InputError(f"snapshots={config.snapshots}: give none, all, or a list of epochs such as [0,10,20]")
    return config


def _check_source(config: MeasuringConfig) -> None:
    """Check that one thing is given to measure: a run, a file of weights, or a model with pretrained weights."""
    if config.checkpoint_key is not None and config.checkpoint is None:
        raise InputError(f"checkpoint_key={config.checkpoint_key}: needs checkpoint=FILE")
    pretrained = config.run is None and asks_for_weights(config.model)
    if pretrained and config.checkpoint is not None:
        option = "weights=null" if config.model["name"] == "torchvision" else "pretrained=false"
        raise InputError(f"checkpoint={config.checkpoint}: the model has pretrained weights, too; pass model.{option}")
    if pretrained:
        return
    if (config.run is None) == (config.checkpoint is None):
        raise InputError(
            "give either run=DIR, or checkpoint=FILE with model=... and dataset=..., or dataset=... and a pretrained model, "
            "such as model=torchvision model.weights=DEFAULT"
        )
    if config.run is None and not kinds.trained_in_epochs(config.model):
        raise InputError(f"checkpoint={config.checkpoint}: model={config.model['name']} has no weights; give run=DIR")


def parse_sweep(composed: DictConfig | Mapping[str, Any], config: RunConfig) -> SweepOptions:
    """Return the checked options of a sweep.

    Args:
        composed: The group `sweep` as Hydra composed it, or as it was recorded.
        config: The configuration of the sweep's first run.

    Raises:
        InputError: An option is unknown or invalid.
    """
    sweep = validate(SweepOptions, plain(composed, "sweep"), "sweep")
    if sweep.name is not None and not re.fullmatch(SWEEP_NAME, sweep.name):
        raise InputError(f"sweep.name={sweep.name}: use at most 100 letters, digits, dashes, underscores and dots")
    if sweep.budget <= 0:
        raise InputError(f"sweep.time_budget={sweep.time_budget}: give a time above 0, such as 90s, 20m or 8h")
    statistics = ("region_count", "region_entropy")
    measured = [Column(statistic, name).key for statistic in statistics for name in config.regions.subspaces]
    measures = [name for name in config.measures if name not in ("accuracy", "seed_agreement")]
    for option, columns, choices in (
        ("sweep.regression", sweep.regression, [*measured, *measures]),
        ("sweep.targets", sweep.targets, [*TARGET_COLUMNS, *measured, *measures]),
    ):
        for column in columns:
            # The measures of plugins and of the suite may have several columns, whose names begin with their own.
            several = [name for name in measures if _has_several_columns(name)]
            if column not in choices and not column.startswith(tuple(f"{name}_" for name in several)):
                raise InputError(unknown_choice(option, column, choices))
    return sweep


def _has_several_columns(measure: str) -> bool:
    entry = registry.measures.get(measure)
    return entry is None or entry.plugin is not None or bool(entry.traits.get("suite"))


def parse_model(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's name and options from a run's record. The options are checked when the model is built.

    Raises:
        InputError: The record has no model, or the model is from a plugin that the command line does not name.
    """
    model = named_part(plain(recorded, "model"), "model")
    if not kinds.is_available(model):
        if "_target_" in model:
            raise InputError(import_advice("model", model["_target_"]))
        raise InputError(unknown_choice("model", model["name"], registry.models.names()))
    return model


def require_plugins(record: Mapping[str, Any]) -> None:
    """Check that the plugins that supplied a recorded run's model and data set are loaded and have not changed.

    Args:
        record: The run's configuration as it was recorded.

    Raises:
        InputError: A plugin must be named on the command line, or its source differs from the recorded one.
    """
    sources = record.get("plugin_sources")
    for part in ("model", "dataset"):
        named = record.get(part)
        if isinstance(named, Mapping) and "_target_" in named and not (isinstance(sources, Mapping) and part in sources):
            raise InputError("the run's record names a class without its plugin's source: the record has been edited")
        source = sources.get(part) if isinstance(sources, Mapping) else None
        if not isinstance(source, str):
            continue
        plugin = source.partition(":")[0]
        if not is_loaded(plugin):
            raise InputError(f"the run's {part} is from the plugin {plugin}: pass plugins=[{plugin}]")
        if plugin_source(plugin) != source:
            raise InputError(
                f"plugins=[{plugin}]: its source has changed since the run was trained; restore it or train again"
            )


def _options_of_a_run(composed: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as plain values, without `SWEEP_ONLY_GROUPS`."""
    return {key: value for key, value in plain(composed).items() if key not in SWEEP_ONLY_GROUPS}


def _load_plugins(mapping: dict[str, Any], recorded: bool) -> list[str]:
    """Import the plugins of a configuration and return their names. A record imports nothing: return an empty list."""
    names = mapping.get("plugins") or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InputError(f"plugins={abbreviate(names)}: give a list of modules, such as [my_module]")
    if recorded:
        return []
    load_plugins(names)
    return names


def _parse_part(table: registry.Registry, options: object, group: str, recorded: bool) -> dict[str, Any]:
    """Return the name and the checked options of a model, optimizer or schedule, as they were given."""
    part = named_part({} if options is None else options, group)
    if table is registry.models and recorded and not kinds.is_available(part):
        return part
    if table is not registry.models and recorded and part["name"] not in table:
        return part
    entry = kinds.entry(part) if table is registry.models else table[part["name"]]
    own = {key: value for key, value in part.items() if key not in ("name", "_target_")}
    checked = validate_options(entry, own, group)
    own = {key: getattr(checked, key, value) if isinstance(value, str) else value for key, value in own.items()}
    own = {key: value for key, value in own.items() if not checked.is_later_default(key)}
    named = {key: part[key] for key in ("name", "_target_") if key in part}
    if table is registry.optimizers:
        own = {"weight_decay": 0.0} | own
        own |= {key: float(own[key]) for key in ("learning_rate", "weight_decay")}
        return named | own
    known = {*type(checked).model_fields, *(checked.model_extra or {})}
    return named | {key: value for key, value in own.items() if key in known}


def _parse_rest(schema: type[AnyConfig], mapping: dict[str, Any], recorded: bool) -> AnyConfig:
    """Return the checked configuration, after checking its data set, subspaces and measures."""
    dataset = plain(mapping.get("dataset") or {"name": "digits"}, "dataset")
    options = validate_dataset(dataset, recorded)
    regions = mapping.get("regions") or {}
    if not isinstance(regions, dict):
        raise InputError(f"regions={abbreviate(regions)}: give subspaces of configs/regions, for example regions=[line]")
    settings = {key: regions[key] for key in ("seed", "method", "budget", "connectivity") if key in regions}
    subspaces = {name: _parse_subspace(name, regions[name], recorded) for name in regions if name not in settings}
    checked = validate(schema, mapping | {"dataset": options, "regions": settings | {"subspaces": subspaces}})
    check_exact(checked.regions, recorded)
    if recorded:
        if invalid := [name for name in checked.measures if not re.fullmatch(r"\w+", name)]:
            raise InputError(f"measures={abbreviate(invalid[0])}: not a valid measure name")
        return checked
    if isinstance(checked, RunConfig):
        registry.augmentations[checked.augmentation]
        _check_tracking(checked.tracker)
    table = registry.measures
    if "all" in checked.measures:
        by_default = [name for name in table.names() if not table[name].traits.get("on_request")]
        named = [name for name in checked.measures if name not in ("all", *by_default)]
        checked.measures = [*by_default, *named]
    if shared := [name for name in checked.regions.subspaces if name in checked.measures]:
        raise InputError(f"regions.{shared[0]}: the measure {shared[0]} has the same name; rename one or leave it out")
    for name in checked.measures:
        table[name]
    for name in checked.measures:
        owner = next((other for other in checked.measures if table[other].plugin and name.startswith(f"{other}_")), None)
        if table[name].plugin and owner:
            raise InputError(f"measures={name}: the columns of {owner} may have this name; choose another one")
    checked.plugin_sources = _plugin_sources(checked)
    return checked


def _check_tracking(options: Tracking) -> None:
    registry.trackers[options.mode]
    project = options.project
    if options.mode.startswith("wandb") and not re.fullmatch(r"[^/\\#?%:]{1,128}", project):
        raise InputError(f"tracker.project={abbreviate(project)}: W&B accepts 1 to 128 characters other than / \\ # ? % :")
    if options.mode == "mlflow" and not project.strip():
        raise InputError("tracker.project is empty: give the name of MLflow's experiment")
    if options.mode == "tensorboard" and (options.tags or options.notes):
        raise InputError(
            "tracker.tags and tracker.notes: TensorBoard has neither; omit them, or use tracker=wandb or mlflow"
        )


def _parse_subspace(name: str, value: object, recorded: bool) -> SubspaceOptions:
    group = f"regions.{name}"
    if not isinstance(value, dict):
        raise InputError(f"{group}={abbreviate(value)}: no such option; a subspace needs a mapping of options")
    if not re.fullmatch(SWEEP_NAME, name):  # the names of figure files contain it
        raise InputError(f"{group}: use at most 100 letters, digits, dashes, underscores and dots in a subspace's name")
    if not recorded and (suffix := next((part for part in PARTS if f"_{name}".endswith(f"_{part}")), None)):
        raise InputError(f"{group}: the ending {suffix} is reserved in tables; choose another name")
    options = {"kind": "simplex"} | value
    entry = registry.subspaces.get(options["kind"]) if isinstance(options["kind"], str) else None
    if recorded and entry is not None:
        own = type(validate_options(entry, {"kind": entry.name}, group)).model_fields
        options = {key: item for key, item in options.items() if key in own or key not in OTHER_KINDS_OPTIONS}
    kind = options["kind"]
    if entry is None and recorded and isinstance(kind, str):
        entry_or_recorded = registry.Entry("subspace", kind, "", RecordedSubspace)
    elif entry is None:
        raise InputError(unknown_choice(f"{group}.kind", abbreviate(kind), registry.subspaces.names()))
    else:
        entry_or_recorded = entry
    subspace = cast(SubspaceOptions, validate_options(entry_or_recorded, options, group))
    if not recorded:
        check_lattice(subspace.dimension_counted, subspace.points_per_axis, subspace.lattice, f"{group}.resolution")
    if entry is not None and entry.plugin:  # reports read the record only, without the plugin's default resolution
        subspace = subspace.model_copy(update={"resolution": subspace.points_per_axis})
    return subspace


def _without_training(mapping: dict[str, Any]) -> dict[str, Any]:
    """Reset the options that do not apply to a model that is fitted in a single call."""
    reset = {"optimizer": {}, "schedule": {}, "stop": Stop(), "snapshots": Snapshots(), "augmentation": "none"}
    reset |= {"ghost_batch_size": None, "pruning": Pruning(), "batch_size": 1, "epochs": 1}
    return mapping | reset | {"device": "cpu", "precision": "float32", "compile": False}


def _plugin_sources(config: RunConfig | MeasuringConfig) -> dict[str, str]:
    """Return the source, as "module:hash", of the plugin that supplies each part."""
    entries = {"dataset": targets.entry(config.dataset)}
    if config.model:
        entries["model"] = kinds.entry(config.model)
    if isinstance(config, RunConfig) and config.optimizer:
        entries["optimizer"] = registry.optimizers[config.optimizer["name"]]
        entries["schedule"] = registry.schedules[config.schedule["name"]]
        entries["augmentation"] = registry.augmentations[config.augmentation]
    entries |= {f"regions.{name}": registry.subspaces[s.kind] for name, s in config.regions.subspaces.items()}
    entries |= {f"measures.{name}": registry.measures[name] for name in config.measures}
    return {part: plugin_source(entry.plugin) for part, entry in entries.items() if entry.plugin}
