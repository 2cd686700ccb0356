"""What a valid configuration is: typed schemas of the groups, and every rule about their values.

A configuration comes from Hydra or from a run's record as a nested mapping; `parse_run` and `parse_measuring` turn it into
dataclasses or raise InputError with one line that names the option. Model, optimizer and schedule are a name and options
that depend on it; they stay mappings and are checked against what the name takes.

What Hydra composed is the user's, and its interpolations such as ${oc.env:HOME} are resolved. A record may be anybody's: it
is data, in which nothing is looked up.
"""

import functools
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import PlainValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from regioncount.errors import InputError
from regioncount.measures import NAMES
from regioncount.models.classical import is_classical
from regioncount.regions.counting import EXACT_METHODS, where_exact
from regioncount.regions.labelling import LATTICE_METHODS
from regioncount.regions.lattice import CONNECTIVITIES
from regioncount.runs.store import MOST_EPOCHS

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
SWEEP_NAME = r"(?!\.)[\w.-]+"  # a part of a path, as are the names of subspaces
MOST_LEVELS = 20  # of mappings and lists in one another; ours have four
# Parts of a composed configuration that make the grid, and no run.
NOT_OF_A_RUN = ("sweep", "hydra", "experiment", "scale", "grid")
SUBSPACES = {  # kind -> the options it takes besides number, resolution and split
    "simplex": ("dimension",),
    "short_segment": (),
    "random_direction": ("scale",),
    "wider_scope": ("start", "stop"),
}


def _whole(value) -> int:
    if type(value) is int:
        return value
    try:
        return int(value if isinstance(value, str) else "no")  # neither 3.5 nor true
    except ValueError:
        raise _wrong("give a whole number") from None


def _real(value) -> float:
    try:
        number = float(value if type(value) in (float, int, str) else "no")  # not true
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _wrong("give a number")
    return number


def _text(value) -> str:
    if isinstance(value, (str, int, float, os.PathLike)):
        return str(value)  # dataset.root=2024 comes as a number
    raise _wrong("give a text")


def _flag(value) -> bool:
    words = {"true": True, "yes": True, "y": True, "on": True, "false": False, "no": False, "n": False, "off": False}
    value = words.get(value.lower(), value) if isinstance(value, str) else value
    try:
        return value if isinstance(value, bool) else bool(_whole(value))
    except PydanticCustomError:
        raise _wrong("give true or false") from None


def _wrong(what_to_give: str) -> PydanticCustomError:
    return PydanticCustomError("option", what_to_give)


Whole = Annotated[int, PlainValidator(_whole)]
Real = Annotated[float, PlainValidator(_real)]
Text = Annotated[str, PlainValidator(_text)]
Flag = Annotated[bool, PlainValidator(_flag)]


@dataclass
class Dataset:
    name: Text = "digits"
    root: Text | None = None
    train_size: Whole | None = None
    test_size: Whole | None = None
    seed: Whole = 0
    resize: Whole | None = None
    label_noise: Real = 0.0
    title: Text | None = None
    workers: Whole | None = None


@dataclass
class Stop:
    train_accuracy: Real | None = None
    train_loss: Real | None = None


@dataclass
class Snapshots:
    every: Whole | None = None
    epochs: list[Whole] = field(default_factory=list)
    keep: Flag = False


@dataclass
class Subspace:
    kind: Text = "simplex"
    dimension: Whole = 1
    number: Whole = 100
    resolution: Whole | None = None
    split: Text = "train"
    scale: Real = 0.1
    start: Real = -1.0
    stop: Real = 2.0


@dataclass
class Regions:
    seed: Whole = 0
    method: Text = "auto"
    budget: Whole | None = None
    connectivity: Text = "paper"
    subspaces: dict[str, Subspace] = field(default_factory=dict)


@dataclass
class Tracker:
    mode: Text = "disabled"
    project: Text = "regioncount"
    entity: Text | None = None
    group: Text | None = None


@dataclass
class SweepOptions:
    """What a sweep does besides its runs."""

    name: Text | None = None
    directory: Text | None = None
    deadline: Real | None = None
    time_budget: Text | None = None
    targets: list[Text] = field(default_factory=list)
    regression: list[Text] = field(default_factory=list)
    published: dict[str, Text] = field(default_factory=dict)

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
    augmentation: Text = "none"
    batch_size: Whole = field(kw_only=True)
    epochs: Whole = field(kw_only=True)
    stop: Stop = field(default_factory=Stop)
    seed: Whole = 0
    snapshots: Snapshots = field(default_factory=Snapshots)
    regions: Regions = field(default_factory=Regions)
    measures: list[Text] = field(default_factory=list)
    tracker: Tracker = field(default_factory=Tracker)
    device: Text = "auto"
    precision: Text = "auto"
    compile: Any = "auto"
    results: Text = "results"


@dataclass
class MeasuringConfig:
    """Measurements of a finished run, or of a file of weights."""

    dataset: Dataset = field(default_factory=Dataset)
    model: dict[str, Any] = field(default_factory=dict)
    run: Text | None = None
    checkpoint: Text | None = None
    snapshots: Any = "none"
    regions: Regions = field(default_factory=Regions)
    measures: list[Text] = field(default_factory=list)
    device: Text = "auto"
    results: Text = "results"


SCHEMAS = (Dataset, Stop, Snapshots, Subspace, Regions, Tracker, SweepOptions, RunConfig, MeasuringConfig)
for _schema in SCHEMAS:
    _schema.__pydantic_config__ = {"extra": "forbid"}


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
    sweep = _validated(SweepOptions, _plain(composed, "sweep"), "sweep")
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
    given = OmegaConf.from_dotlist([change.removeprefix("dataset.") for change in changes])
    dataset = _validated(Dataset, _plain(recorded, "dataset") | _plain(given, "dataset"), "dataset")
    _check_dataset(dataset)
    return dataset


def parse_model(recorded: Mapping) -> dict[str, Any]:
    """A network's or classifier's name and options from a run's record; the options are checked when it is built."""
    options = _plain(recorded, "model")
    _check_named("model", options)
    return options


def as_mapping(config) -> dict:
    """A configuration dataclass as plain nested mappings, the way it is recorded."""
    mapping = asdict(config)
    if "regions" in mapping:
        mapping["regions"].update(mapping["regions"].pop("subspaces"))
    return mapping


def subspace_options(subspace: Subspace) -> dict[str, Any]:
    """What decides where a subspace lies and how it is counted, without the options its kind does not take."""
    names = ("kind", "number", "resolution", "split", *SUBSPACES[subspace.kind])
    return {name: getattr(subspace, name) for name in names}


def _typed(schema: type, composed: DictConfig | Mapping):
    """`composed` as an instance of the schema, every type checked."""
    mapping = {key: value for key, value in _plain(composed).items() if key not in NOT_OF_A_RUN}
    regions = mapping.pop("regions", None) or {}
    if not isinstance(regions, dict):
        raise InputError(f"regions={_shown(regions)}: name subspaces of configs/regions, for example regions=[line]")
    settings = {key: regions[key] for key in ("seed", "method", "budget", "connectivity") if key in regions}
    subspaces = {key: value for key, value in regions.items() if key not in settings}
    for name, value in subspaces.items():
        if not isinstance(value, dict):
            raise InputError(f"regions.{name}={_shown(value)}: no such option, and no subspace with options of its own")
    return _validated(schema, mapping | {"regions": settings | {"subspaces": subspaces}})


def _plain(composed: DictConfig | Mapping, group: str = "") -> dict:
    """`composed` as a dictionary of its own, lists and values. Only what OmegaConf made of the user's words is resolved."""
    if isinstance(composed, DictConfig):
        try:
            composed = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise InputError(_one_line(error, group)) from error
    if not isinstance(composed, Mapping):
        raise InputError(f"{group or 'the configuration'}={_shown(composed)}: give options by name")
    return _copy(composed, group)


def _copy(value, name: str, level: int = 0):
    """Mappings as dictionaries, tuples as lists. InputError where a text stands for another value, or levels never end."""
    if isinstance(value, str) and ("${" in value or value == "???"):
        raise InputError(f"{_shown(name)}={_shown(value)}: give a value; nothing is looked up here")
    if isinstance(value, str) and not value.isprintable():
        raise InputError(f"{_shown(name)}={_shown(value)}: it has characters that cannot be printed")
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if level > MOST_LEVELS:
        raise InputError(f"{_shown(name)}: options have at most {MOST_LEVELS} levels")
    if isinstance(value, Mapping):
        return {key: _copy(item, f"{name}.{key}" if name else str(key), level + 1) for key, item in value.items()}
    return [_copy(item, name, level + 1) for item in value]


@functools.cache
def _adapter(schema: type) -> TypeAdapter:
    return TypeAdapter(schema)


def _validated(schema: type, mapping: dict, group: str = ""):
    """`mapping` as an instance of the schema. InputError names the first option that is not one, or not of its type."""
    try:
        return _adapter(schema).validate_python(mapping)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
    path = [group] * bool(group) + [str(part) for part in wrong["loc"] if part not in ("subspaces", "[key]")]
    if isinstance(wrong["loc"][-1], int):  # in a list
        path.pop()
    name = _shown(".".join(path))
    if wrong["type"] == "unexpected_keyword_argument":
        inner = {"dataset": Dataset, "stop": Stop, "snapshots": Snapshots, "tracker": Tracker, "regions": Subspace}
        of = inner.get(path[0], schema) if len(path) > 1 else schema
        raise InputError(f"{name}: no such option; there are {', '.join(option.name for option in fields(of))}")
    if wrong["type"] == "missing":
        raise InputError(f"{name} is missing: give a whole number")  # as both options are that have no default
    what = {"option": wrong["msg"], "list_type": "give a list, such as [a,b]"}
    raise InputError(f"{name}={_shown(wrong['input'])}: {what.get(wrong['type'], 'give options by name')}")


def _shown(value) -> str:
    """A value as a message shows it: on one line, and not all of a long one."""
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:100]}..."


def _one_line(error: OmegaConfBaseException, group: str) -> str:
    """OmegaConf's several lines as one that starts with the option's name."""
    message = str(error.msg if getattr(error, "msg", None) else error).strip().splitlines()[0]
    key = str(getattr(error, "full_key", "") or group)
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
    if config.epochs > MOST_EPOCHS:
        raise InputError(f"epochs={config.epochs}: give {MOST_EPOCHS} at most")
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
        config.measures = [name for name in NAMES if name != "theorem"]  # which is one model's alone
    for name in config.measures:
        _one_of("measures", name, NAMES)
    _at_least("regions.seed", config.regions.seed, 0)
    _one_of("regions.method", config.regions.method, (*LATTICE_METHODS, *EXACT_METHODS))
    _at_least("regions.budget", config.regions.budget, 1)
    if config.regions.budget is not None and config.regions.method not in EXACT_METHODS:
        raise InputError(f"regions.budget={config.regions.budget}: give it with regions.method=exact or bounds")
    _one_of("regions.connectivity", config.regions.connectivity, CONNECTIVITIES)
    for name, subspace in config.regions.subspaces.items():
        where = f"regions.{name}"
        if not re.fullmatch(SWEEP_NAME, name):  # figures are named after it
            raise InputError(f"{where}: letters, digits, dashes, underscores and dots make a name")
        _one_of(f"{where}.kind", subspace.kind, SUBSPACES)
        _one_of(f"{where}.split", subspace.split, ("train", "test"))
        _at_least(f"{where}.dimension", subspace.dimension, 1)
        if subspace.kind == "simplex" and subspace.dimension > EXACT_METHODS.get(config.regions.method, math.inf):
            method, on = f"regions.method={config.regions.method}", where_exact(config.regions.method)
            raise InputError(f"{where}: {method} counts {on}; leave this subspace out, or take method=auto")
        if subspace.kind == "simplex" and subspace.dimension > 1 and config.regions.budget is not None:
            raise InputError(f"{where}: regions.budget={config.regions.budget} is for lines; leave one of them out")
        _at_least(f"{where}.number", subspace.number, 1)
        _at_least(f"{where}.resolution", subspace.resolution, 2)
        _positive(f"{where}.scale", subspace.scale)
        if not subspace.start < subspace.stop:
            raise InputError(f"{where}.start={subspace.start}: must lie below {where}.stop={subspace.stop}")


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _at_least(name: str, value, least: int) -> None:
    if value is not None and value < least:
        raise InputError(f"{name}={value}: must be at least {least}")


def _positive(name: str, value) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise InputError(f"{name}={value}: must be above 0")


def _one_of(name: str, value, allowed) -> None:
    if value not in allowed:
        raise InputError(f"{name}={value}: no such choice; one of {', '.join(allowed)}")
