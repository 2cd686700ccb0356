"""Schemas of configurations: dataclasses with the type and the limits of every option.

The options of a model, an optimizer or a schedule depend on its name; these groups remain mappings. --help prints the
docstrings of the fields.
"""

import math
import os
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any, cast

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator

from regioncount.config.values import parse_duration
from regioncount.data.sources import DatasetOptions
from regioncount.data.subspaces import SubspaceOptions
from regioncount.options import Bool, Float, Int, NonNegativeInt, PositiveInt, Seed, Str, one_of, wrong_value
from regioncount.regions.methods import CONNECTIVITIES, EXACT_METHODS, LATTICE_METHODS
from regioncount.runs.validation import MAX_EPOCHS


def _path(text: str) -> str:
    if not text.strip():
        raise wrong_value("give a path")
    return os.path.expanduser(text)  # in results=~/DIR, some shells do not replace the tilde


PathText = Annotated[Str, AfterValidator(_path)]


def _auto_or_flag(value: object, choices: tuple[str, ...]) -> bool | str:
    if value != "auto" and not isinstance(value, bool):
        raise wrong_value(f"no such choice; choose one of {', '.join(choices)}")
    return cast("bool | str", value)


AutoOrFlag = Annotated[bool | str, PlainValidator(partial(_auto_or_flag, choices=("auto", "true", "false")))]


@dataclass
class Stop:
    """When training stops before the last epoch."""

    train_accuracy: Annotated[Float, Field(gt=0, le=1)] | None = None
    """Stop at this accuracy, a fraction, on the whole training set in evaluation mode; null: train all epochs."""
    train_loss: Annotated[Float, Field(gt=0)] | None = None
    """Stop at this loss, computed in the same way; null: train all epochs."""


@dataclass
class Snapshots:
    """The epochs before the last one at which a run is also measured."""

    every: PositiveInt | None = None
    """Also measure the model at epochs 0, every, 2 every, ...; null: only after training."""
    epochs: list[NonNegativeInt] = field(default_factory=list)
    """Also measure the model at these epochs, such as [1,5]."""
    keep: Bool = False
    """Keep the weights of these epochs after they have been measured."""


@dataclass
class Pruning:
    """Magnitude pruning: the smallest weights of convolutions and linear layers are set to zero and no longer trained."""

    sparsity: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """The fraction of the weights of convolutions and linear layers that is pruned."""
    epoch: NonNegativeInt | None = None
    """The epoch after which they are pruned; 0 prunes the initial weights. The stop rule applies from this epoch on.
    Required if the sparsity is above 0."""


@dataclass
class Regions:
    """The subspaces in which regions are counted, and the method."""

    seed: Seed = 0
    """The seed of the subspaces, which are the same for every run."""
    method: Annotated[str, one_of(*LATTICE_METHODS, *EXACT_METHODS)] = "auto"
    """How regions are counted: at all points of a lattice (grid), at those that are needed (adaptive, auto), or without a
    lattice, by computing every boundary (exact, bounds)."""
    budget: PositiveInt | None = None
    """The maximum number of network evaluations, for regions.method=exact and bounds; null: no maximum."""
    connectivity: Annotated[str, one_of(*CONNECTIVITIES)] = "paper"
    """Which lattice points are neighbours."""
    subspaces: dict[str, SubspaceOptions] = field(default_factory=dict)


@dataclass
class Tracking:
    """Where runs are logged."""

    mode: Str = "disabled"
    """The tracker; chosen with tracker=NAME."""
    project: Str = "regioncount"
    """The project of W&B, or the experiment of MLflow."""
    entity: Str | None = None
    """The W&B user or team; null: the default of the API key."""
    group: Str | None = None
    """The group of a single run; a sweep groups its runs by its own name."""
    tags: list[Annotated[Str, Field(min_length=1, max_length=64)]] = field(default_factory=list)
    """Tags of the run in W&B or MLflow, a list."""
    notes: Str | None = None
    """A description of the run in W&B or MLflow."""


@dataclass
class SweepOptions:
    """Options of a sweep as a whole."""

    name: Str | None = None
    """The name of the sweep and its directory; null: the experiment's name."""
    time_budget: Str | None = None
    """Start no run after this time, such as 90s, 20m or 8h; rerun the command to resume. null: no limit."""
    dry_run: Bool = False
    """Whether to print the cells and which of them are complete, and stop."""
    targets: list[Str] = field(default_factory=list)
    """Columns of runs.csv to correlate measures with, besides the generalization gap and the test error."""
    regression: list[Str] = field(default_factory=list)
    """The measures in a multiple regression of the test error."""
    published: dict[str, Str] = field(default_factory=dict)
    """Maps subspaces or measures to experiments of the paper whose correlations are printed beside ours, as in
    +sweep.published.line=cifar10."""

    @property
    def budget(self) -> float:
        """The time budget in seconds; inf if there is none."""
        return math.inf if self.time_budget is None else parse_duration(self.time_budget)


@dataclass
class RunConfig:
    """A run: how a model is trained, and what is measured."""

    dataset: DatasetOptions = field(default_factory=DatasetOptions)
    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    augmentation: Str = "none"
    """The augmentation of the training images."""
    batch_size: PositiveInt = field(kw_only=True)
    """The number of images in a batch."""
    epochs: Annotated[Int, Field(ge=1, le=MAX_EPOCHS)] = field(kw_only=True)
    """The number of passes over the training set."""
    stop: Stop = field(default_factory=Stop)
    ghost_batch_size: PositiveInt | None = None
    """Batch normalization uses the statistics of this many images in training; null: those of the whole batch."""
    pruning: Pruning = field(default_factory=Pruning)
    seed: Seed = 0
    """The seed of the initial weights, the batches and the augmentation."""
    snapshots: Snapshots = field(default_factory=Snapshots)
    regions: Regions = field(default_factory=Regions)
    measures: list[Str] = field(default_factory=list)
    """The measures to compute, a list; [all] for all that need no request of their own (docs/measures.md)."""
    tracker: Tracking = field(default_factory=Tracking)
    device: Str = "auto"
    """The device of training and measuring: auto (the GPU with the most free memory, or else the CPU), cpu, cuda, cuda:N
    or mps."""
    precision: Annotated[str, one_of("auto", "float32", "bfloat16")] = "auto"
    """The precision of training; auto: bfloat16 on hardware that multiplies in it."""
    compile: AutoOrFlag = "auto"
    """Whether training steps are compiled; auto: long runs on a CPU with a C++ compiler."""
    results: PathText = "results"
    """The output directory."""
    plugins: list[Str] = field(default_factory=list)
    """Your own modules that register models, data sets, optimizers, subspaces, measures, ..."""
    plugin_sources: dict[str, Str] = field(default_factory=dict)
    """The source, as "module:hash", of the plugin that supplies each part, such as "model" or "measures.NAME"."""


@dataclass
class MeasuringConfig:
    """Measurements of a finished run, of a file of weights, or of a model with pretrained weights."""

    dataset: DatasetOptions = field(default_factory=DatasetOptions)
    model: dict[str, Any] = field(default_factory=dict)
    run: PathText | None = None
    """The directory of a finished run. It has its own data set and model."""
    checkpoint: PathText | None = None
    """A file of weights: a state dictionary saved with torch.save. Needs dataset=... and model=..."""
    checkpoint_key: Str | None = None
    """The key of the weights in the file, such as model_ema; null: state_dict, model, ... (docs/reference.md)."""
    snapshots: Any = "none"
    """The snapshots to measure besides the final model: none, all, or a list of epochs such as [0,10,20]."""
    regions: Regions = field(default_factory=Regions)
    measures: list[Str] = field(default_factory=list)
    """The measures to compute, a list; [all] for all that need no request of their own (docs/measures.md)."""
    device: Str = "auto"
    """The device of measuring: auto (the GPU with the most free memory, or else the CPU), cpu, cuda, cuda:N or mps."""
    results: PathText = "results"
    """The output directory for the measurements of a checkpoint."""
    plugins: list[Str] = field(default_factory=list)
    """Your own modules that register models, data sets, subspaces or measures."""
    plugin_sources: dict[str, Str] = field(default_factory=dict)
    batch_size: int | None = None
    """The batch size of the run, which is no option of the command; None for a file of weights."""


for _schema in (Stop, Pruning, Snapshots, Regions, Tracking, SweepOptions, RunConfig, MeasuringConfig):
    _schema.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)  # type: ignore[attr-defined]


def as_mapping(config: RunConfig | MeasuringConfig) -> dict[str, Any]:
    """Return a configuration as nested mappings of plain values, as it is recorded.

    Ghost batches and pruning are left out if they are not used, so that runs that were recorded before these options existed
    keep their identities.
    """
    mapping = asdict(config)
    if isinstance(config, RunConfig):
        unused = {"ghost_batch_size": config.ghost_batch_size is None, "pruning": config.pruning.sparsity == 0}
        mapping = {key: value for key, value in mapping.items() if not unused.get(key)}
    mapping["dataset"] = config.dataset.model_dump()
    del mapping["regions"]["subspaces"]
    mapping["regions"] |= {name: subspace.model_dump() for name, subspace in config.regions.subspaces.items()}
    del mapping["plugins"]  # a record imports nothing; plugin_sources has the plugins that supplied a part
    if not config.plugin_sources:
        del mapping["plugin_sources"]
    return mapping
