"""Schemas of configurations: dataclasses with the type and the limits of every option.

The options of a model, an optimizer or a schedule depend on its name; these groups remain mappings.
"""

import math
import os
from dataclasses import asdict, dataclass, field
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


def _auto_or_flag(value: object) -> bool | str:
    if value != "auto" and not isinstance(value, bool):
        raise wrong_value("no such choice; choose one of auto, true, false")
    return cast("bool | str", value)


@dataclass
class Stop:
    """When training stops before the last epoch."""

    train_accuracy: Annotated[Float, Field(gt=0, le=1)] | None = None
    train_loss: Annotated[Float, Field(gt=0)] | None = None


@dataclass
class Snapshots:
    """The epochs before the last one at which a run is also measured."""

    every: PositiveInt | None = None
    epochs: list[NonNegativeInt] = field(default_factory=list)
    keep: Bool = False


@dataclass
class Pruning:
    """Magnitude pruning: the smallest weights of convolutions and linear layers are set to zero and no longer trained."""

    sparsity: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """The fraction of these weights that is pruned."""
    epoch: NonNegativeInt | None = None
    """The epoch after which they are pruned; 0 prunes the initial weights. The stop rule applies from this epoch on."""


@dataclass
class Regions:
    """The subspaces in which regions are counted, and the method."""

    seed: Seed = 0
    method: Annotated[str, one_of(*LATTICE_METHODS, *EXACT_METHODS)] = "auto"
    budget: PositiveInt | None = None
    connectivity: Annotated[str, one_of(*CONNECTIVITIES)] = "paper"
    subspaces: dict[str, SubspaceOptions] = field(default_factory=dict)


@dataclass
class Tracking:
    """Where runs are logged."""

    mode: Str = "disabled"
    project: Str = "regioncount"
    entity: Str | None = None
    group: Str | None = None


@dataclass
class SweepOptions:
    """Options of a sweep as a whole."""

    name: Str | None = None
    time_budget: Str | None = None
    targets: list[Str] = field(default_factory=list)
    regression: list[Str] = field(default_factory=list)
    published: dict[str, Str] = field(default_factory=dict)

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
    batch_size: PositiveInt = field(kw_only=True)
    epochs: Annotated[Int, Field(ge=1, le=MAX_EPOCHS)] = field(kw_only=True)
    stop: Stop = field(default_factory=Stop)
    ghost_batch_size: PositiveInt | None = None
    """Batch normalization uses the statistics of this many images in training; None for those of the whole batch."""
    pruning: Pruning = field(default_factory=Pruning)
    seed: Seed = 0
    snapshots: Snapshots = field(default_factory=Snapshots)
    regions: Regions = field(default_factory=Regions)
    measures: list[Str] = field(default_factory=list)
    tracker: Tracking = field(default_factory=Tracking)
    device: Str = "auto"
    precision: Annotated[str, one_of("auto", "float32", "bfloat16")] = "auto"
    compile: Annotated[bool | str, PlainValidator(_auto_or_flag)] = "auto"
    results: PathText = "results"
    plugins: list[Str] = field(default_factory=list)
    plugin_sources: dict[str, Str] = field(default_factory=dict)
    """The source, as "module:hash", of the plugin that supplies each part, such as "model" or "measures.NAME"."""


@dataclass
class MeasuringConfig:
    """Measurements of a finished run, or of a file of weights."""

    dataset: DatasetOptions = field(default_factory=DatasetOptions)
    model: dict[str, Any] = field(default_factory=dict)
    run: PathText | None = None
    checkpoint: PathText | None = None
    snapshots: Any = "none"
    regions: Regions = field(default_factory=Regions)
    measures: list[Str] = field(default_factory=list)
    device: Str = "auto"
    results: PathText = "results"
    plugins: list[Str] = field(default_factory=list)
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
