"""What a valid configuration is: typed schemas of the groups, and every rule about their values.

A configuration comes from Hydra or from a run's record as a nested mapping; `parse_run` and `parse_measuring` turn it into
dataclasses or raise InputError with one line that names the option. Model, optimizer and schedule are a name and options
that depend on it; they stay mappings and are checked against what the name takes.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from regioncount.classical import is_classical
from regioncount.errors import InputError
from regioncount.measures import NAMES
from regioncount.regions.labelling import METHODS
from regioncount.regions.lattice import CONNECTIVITIES

AUGMENTATIONS = ("none", "crop_flip", "mixup")
DATASETS = ("digits", "cifar10", "cifar100", "svhn", "image_folder", "imagenet")
OPTIMIZERS = {  # name -> the options it takes besides learning_rate and weight_decay
    "sgd": ("momentum", "nesterov"),
    "sam": ("momentum", "nesterov", "rho"),
    "adam": ("betas",),
    "adamw": ("betas",),
    "adagrad": (),
    "rmsprop": ("alpha", "momentum"),
    "adadelta": ("rho",),
}
SCHEDULES = {  # name -> the options it needs; all but gamma in epochs
    "constant": (),
    "cosine": (),
    "step": ("step_size", "gamma"),
    "multistep": ("milestones", "gamma"),
    "exponential": ("gamma",),
}
SWEEP_NAME = r"(?!\.)[\w.-]+"  # a part of a path
# Parts of a composed configuration that make the grid, and no run.
NOT_OF_A_RUN = ("sweep", "hydra", "experiment", "scale", "grid")
SUBSPACES = {  # kind -> the options it takes besides number, resolution and split
    "simplex": ("dimension",),
    "short_segment": (),
    "random_direction": ("scale",),
    "wider_scope": ("start", "stop"),
}


@dataclass
class Dataset:
    name: str = "digits"
    root: str | None = None
    train_size: int | None = None
    test_size: int | None = None
    seed: int = 0
    resize: int | None = None
    label_noise: float = 0.0
    title: str | None = None
    workers: int | None = None


@dataclass
class Stop:
    train_accuracy: float | None = None
    train_loss: float | None = None


@dataclass
class Snapshots:
    every: int | None = None
    epochs: list[int] = field(default_factory=list)
    keep: bool = False


@dataclass
class Subspace:
    kind: str = "simplex"
    dimension: int = 1
    number: int = 100
    resolution: int | None = None
    split: str = "train"
    scale: float = 0.1
    start: float = -1.0
    stop: float = 2.0


@dataclass
class Regions:
    seed: int = 0
    method: str = "auto"
    connectivity: str = "paper"
    subspaces: dict[str, Subspace] = field(default_factory=dict)


@dataclass
class Tracker:
    mode: str = "disabled"
    project: str = "regioncount"
    entity: str | None = None
    group: str | None = None


@dataclass
class SweepOptions:
    """What a sweep does besides its runs."""

    name: str | None = None
    directory: str | None = None
    deadline: float | None = None
    time_budget: str | None = None
    targets: list[str] = field(default_factory=list)
    regression: list[str] = field(default_factory=list)
    published: dict[str, str] = field(default_factory=dict)

    @property
    def budget(self) -> float:
        """The time budget in seconds; infinity where there is none."""
        return math.inf if self.time_budget is None else parse_duration(self.time_budget)


@dataclass
class RunConfig:
    """A run: how a model is trained, and what is measured of it."""

    dataset: Dataset = field(default_factory=Dataset)
    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    augmentation: str = "none"
    batch_size: int = MISSING
    epochs: int = MISSING
    stop: Stop = field(default_factory=Stop)
    seed: int = 0
    snapshots: Snapshots = field(default_factory=Snapshots)
    regions: Regions = field(default_factory=Regions)
    measures: list[str] = field(default_factory=list)
    tracker: Tracker = field(default_factory=Tracker)
    device: str = "auto"
    precision: str = "auto"
    compile: Any = "auto"
    results: str = "results"


@dataclass
class MeasuringConfig:
    """Measurements of a finished run, or of a file of weights."""

    dataset: Dataset = field(default_factory=Dataset)
    model: dict[str, Any] = field(default_factory=dict)
    run: str | None = None
    checkpoint: str | None = None
    snapshots: Any = "none"
    regions: Regions = field(default_factory=Regions)
    measures: list[str] = field(default_factory=list)
    device: str = "auto"
    results: str = "results"


def parse_run(composed: DictConfig | Mapping) -> RunConfig:
    """A checked RunConfig from a composed configuration; InputError, in one line, where it is not valid."""
    config = _typed(RunConfig, composed)
    _check_dataset(config.dataset)
    _check_named("model", config.model)
    _at_least("seed", config.seed, 0)
    if is_classical(config.model):
        _leave_out_training(config)
    else:
        _check_training(config)
    _check_measuring(config)
    _one_of("tracker.mode", config.tracker.mode, ("disabled", "wandb", "wandb_offline"))
    return config


def parse_measuring(composed: DictConfig | Mapping) -> MeasuringConfig:
    """A checked MeasuringConfig; InputError, in one line, where it is not valid."""
    config = _typed(MeasuringConfig, composed)
    if (config.run is None) == (config.checkpoint is None):
        raise InputError("give either run=DIR or checkpoint=FILE with its model=... and dataset=...")
    if config.run is None:
        _check_dataset(config.dataset)
        _check_named("model", config.model)
        if is_classical(config.model):
            raise InputError(f"checkpoint={config.checkpoint}: model={config.model['name']} has no weights; give run=DIR")
    if isinstance(config.snapshots, str):
        _one_of("snapshots", config.snapshots, ("none", "all"))
    elif not (isinstance(config.snapshots, list) and all(type(e) is int and e >= 0 for e in config.snapshots)):
        raise InputError(f"snapshots={config.snapshots}: give none, all, or a list of epochs such as [0,10,20]")
    _check_measuring(config)
    return config


def parse_sweep(composed: DictConfig | Mapping, config: RunConfig) -> SweepOptions:
    """Checked options; config: of the sweep's first run. InputError, in one line, where it is not valid."""
    try:
        sweep = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SweepOptions), composed))
    except OmegaConfBaseException as error:
        raise InputError(f"sweep.{_one_line(error)}") from error
    name = sweep.name
    if name is not None and not re.fullmatch(SWEEP_NAME, name):
        raise InputError(f"sweep.name={name}: letters, digits, dashes, underscores and dots make a name")
    if sweep.budget <= 0:
        raise InputError(f"sweep.time_budget={sweep.time_budget}: give a time above 0, such as 90s, 20m or 8h")
    subspaces = [f"region_{what}_{name}" for what in ("count", "entropy") for name in config.regions.subspaces]
    measured = [*subspaces, *(name for name in config.measures if name not in ("accuracy", "seed_agreement"))]
    for measure in sweep.regression:
        _one_of("sweep.regression", measure, measured)
    for target in sweep.targets:
        _one_of("sweep.targets", target, ("generalization_gap", "test_error", "test_accuracy", *measured))
    return sweep


def parse_duration(text: str) -> float:
    """Seconds of a duration such as 90s, 20m, 8h or 2d. InputError where it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None:
        raise InputError(f"sweep.time_budget={text}: give a number and a unit, such as 90s, 20m or 8h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def parse_dataset(recorded: Mapping, changes: Sequence[str] = ()) -> Dataset:
    """A checked data set from a run's record, with overrides such as "dataset.root=DIR" laid over it."""
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(Dataset), recorded, OmegaConf.from_dotlist([c.removeprefix("dataset.") for c in changes])
        )
        dataset = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise InputError(f"dataset: {_one_line(error)}") from error
    _check_dataset(dataset)
    return dataset


def as_mapping(config) -> dict:
    """A configuration dataclass as plain nested mappings, the way it is recorded."""
    mapping = OmegaConf.to_container(OmegaConf.structured(config))
    if "regions" in mapping:
        mapping["regions"].update(mapping["regions"].pop("subspaces"))
    return mapping


def subspace_options(subspace: Subspace) -> dict[str, Any]:
    """What decides where a subspace lies and how it is counted, without the options its kind does not take."""
    names = ("kind", "number", "resolution", "split", *SUBSPACES[subspace.kind])
    return {name: getattr(subspace, name) for name in names}


def _typed(schema: type, composed: DictConfig | Mapping):
    """`composed` as an instance of the schema, every type checked."""
    try:
        mapping = OmegaConf.to_container(OmegaConf.create(composed), resolve=True, throw_on_missing=True)
        mapping = {key: value for key, value in mapping.items() if key not in NOT_OF_A_RUN}
        regions = mapping.pop("regions", None) or {}
        if not isinstance(regions, dict):
            raise InputError(f"regions={regions}: name subspaces of configs/regions, for example regions=[line]")
        settings = {key: regions[key] for key in ("seed", "method", "connectivity") if key in regions}
        subspaces = {key: value for key, value in regions.items() if key not in settings}
        for name, value in subspaces.items():
            if not isinstance(value, dict):
                raise InputError(f"regions.{name}={value}: no such option, and no subspace with options of its own")
        mapping["regions"] = {**settings, "subspaces": subspaces}
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), mapping))
    except OmegaConfBaseException as error:
        raise InputError(_one_line(error)) from error


def _one_line(error: OmegaConfBaseException) -> str:
    """OmegaConf's several lines as one that starts with the option's name."""
    message = str(error.msg if getattr(error, "msg", None) else error).strip().splitlines()[0]
    key = str(getattr(error, "full_key", "") or "").replace("regions.subspaces.", "regions.")
    return f"{key}: {message}" if key and not message.startswith(key) else message


def _check_dataset(dataset: Dataset) -> None:
    _one_of("dataset", dataset.name, DATASETS)
    for name in ("train_size", "test_size", "resize"):
        _at_least(f"dataset.{name}", getattr(dataset, name), 1)
    _at_least("dataset.seed", dataset.seed, 0)
    _at_least("dataset.workers", dataset.workers, 0)
    if not 0 <= dataset.label_noise <= 1:
        raise InputError(f"dataset.label_noise={dataset.label_noise}: give a fraction between 0 and 1")


def _check_named(group: str, options: dict[str, Any]) -> None:
    if not isinstance(options.get("name"), str):
        raise InputError(f"{group}.name is missing: choose one of configs/{group}, for example on the command line")
    for name in [name for name, value in options.items() if value is None]:
        del options[name]  # as if it had not been given


def _check_training(config: RunConfig) -> None:
    _check_optimizer(config.optimizer)
    _check_schedule(config.schedule)
    _one_of("augmentation", config.augmentation, AUGMENTATIONS)
    _at_least("batch_size", config.batch_size, 1)
    _at_least("epochs", config.epochs, 1)
    if config.stop.train_accuracy is not None and not 0 < config.stop.train_accuracy <= 1:
        raise InputError(f"stop.train_accuracy={config.stop.train_accuracy}: give a fraction above 0, at most 1")
    _positive("stop.train_loss", config.stop.train_loss)
    _at_least("snapshots.every", config.snapshots.every, 1)
    for epoch in config.snapshots.epochs:
        _at_least("snapshots.epochs", epoch, 0)
        if epoch > config.epochs:
            raise InputError(f"snapshots.epochs has {epoch}, past the last epoch ({config.epochs})")
    _one_of("precision", config.precision, ("auto", "float32", "bfloat16"))
    if config.compile != "auto" and type(config.compile) is not bool:
        raise InputError(f"compile={config.compile}: no such choice; one of auto, true, false")


def _leave_out_training(config: RunConfig) -> None:
    """Have the configuration of a classical classifier say nothing of how networks are trained: it has no part in one."""
    if config.seed >= 2**32:
        raise InputError(f"seed={config.seed}: model={config.model['name']} takes seeds below 2^32")
    config.optimizer, config.schedule, config.stop, config.snapshots = {}, {}, Stop(), Snapshots()
    config.augmentation, config.batch_size, config.epochs = "none", 0, 0
    config.device, config.precision, config.compile = "cpu", "float32", False


def _check_optimizer(options: dict[str, Any]) -> None:
    _check_named("optimizer", options)
    _one_of("optimizer", options["name"], OPTIMIZERS)
    sharpness_aware = options["name"] == "sam"
    if sharpness_aware and not (_is_number(options.get("rho")) and 0 < options["rho"] < math.inf):
        raise InputError(f"optimizer.rho={options.get('rho')}: give a number above 0, how far sam looks uphill")
    for name, value in options.items():
        if name in ("name", "learning_rate", "weight_decay"):
            continue
        if name not in OPTIMIZERS[options["name"]]:
            raise InputError(f"optimizer.{name}: {options['name']} takes no such option")
        decay = name in ("momentum", "alpha") or (name == "rho" and not sharpness_aware)
        if decay and not (_is_number(value) and 0 <= value < 1):
            raise InputError(f"optimizer.{name}={value}: give a number of at least 0 and below 1")
        if name == "betas" and not (
            isinstance(value, list) and len(value) == 2 and all(_is_number(b) and 0 <= b < 1 for b in value)
        ):
            raise InputError(f"optimizer.betas={value}: give two numbers of at least 0 and below 1")
        if name == "nesterov" and not isinstance(value, bool):
            raise InputError(f"optimizer.nesterov={value}: give true or false")
    for name in ("learning_rate", "weight_decay"):
        value = options.setdefault(name, 0.0) if name == "weight_decay" else options.get(name)
        if not _is_number(value) or value < 0 or not math.isfinite(value):
            raise InputError(f"optimizer.{name}={value}: give a number of at least 0")
        options[name] = float(value)
    if options.get("nesterov") and not options.get("momentum"):
        raise InputError("optimizer.nesterov=true needs optimizer.momentum above 0")


def _check_schedule(options: dict[str, Any]) -> None:
    _check_named("schedule", options)
    name = options["name"]
    _one_of("schedule", name, SCHEDULES)
    for option, value in options.items():
        if option == "name":
            continue
        if option not in SCHEDULES[name]:
            raise InputError(f"schedule.{option}: {name} takes no such option")
        if option == "gamma" and not (_is_number(value) and 0 < value <= 1):
            raise InputError(f"schedule.gamma={value}: give a number above 0, at most 1")
        if option == "step_size" and not (type(value) is int and value >= 1):
            raise InputError(f"schedule.step_size={value}: give a whole number of epochs, at least 1")
        if option == "milestones" and not (isinstance(value, list) and all(type(v) is int and v >= 1 for v in value)):
            raise InputError(f"schedule.milestones={value}: give a list of epochs, each at least 1")
    if missing := [option for option in SCHEDULES[name] if option not in options]:
        raise InputError(f"schedule.{missing[0]} is missing: {name} needs it")


def _check_measuring(config: RunConfig | MeasuringConfig) -> None:
    if "all" in config.measures:
        config.measures = list(NAMES)
    for name in config.measures:
        _one_of("measures", name, NAMES)
    _at_least("regions.seed", config.regions.seed, 0)
    _one_of("regions.method", config.regions.method, METHODS)
    _one_of("regions.connectivity", config.regions.connectivity, CONNECTIVITIES)
    for name, subspace in config.regions.subspaces.items():
        where = f"regions.{name}"
        _one_of(f"{where}.kind", subspace.kind, SUBSPACES)
        _one_of(f"{where}.split", subspace.split, ("train", "test"))
        _at_least(f"{where}.dimension", subspace.dimension, 1)
        _at_least(f"{where}.number", subspace.number, 1)
        _at_least(f"{where}.resolution", subspace.resolution, 2)
        _positive(f"{where}.scale", subspace.scale)
        if not subspace.start < subspace.stop:
            raise InputError(f"{where}.start={subspace.start}: must lie below {where}.stop={subspace.stop}")


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _at_least(name: str, value, least: int) -> None:
    if value is not None and value < least:
        raise InputError(f"{name}={value}: must be at least {least}")


def _positive(name: str, value) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise InputError(f"{name}={value}: must be above 0")


def _one_of(name: str, value, allowed) -> None:
    if value not in allowed:
        raise InputError(f"{name}={value}: no such choice; one of {', '.join(allowed)}")
