"""Compute the missing measurements of a run."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tqdm import tqdm

from regioncount import measures, registry
from regioncount.config import (
    MeasuringConfig,
    RunConfig,
    as_mapping,
    parse_dataset,
    parse_model,
    parse_run,
    require_plugins,
)
from regioncount.data.dataset import Dataset, with_output_classes
from regioncount.data.subspaces import draw_vertices
from regioncount.errors import InputError, one_line
from regioncount.measures.measured_model import MeasuredModel, from_dataset
from regioncount.models.kinds import kind_of, title, trained_in_epochs
from regioncount.models.networks import build_for, load_state
from regioncount.models.pretrained import check_pixels, output_classes_for, pretrained_state
from regioncount.options import abbreviate
from regioncount.regions import Preparation, RegionCount, count_regions
from regioncount.regions.evaluation import float64_device
from regioncount.runs import files, store, weights
from regioncount.runs.checkpoints import load_checkpoint
from regioncount.runs.environment import device_name, environment
from regioncount.runs.identity import identity_of, measurement_key
from regioncount.runs.loading import check, load_dataset
from regioncount.runs.measurements import measurement_settings
from regioncount.runs.store import Run

SAVE_SECONDS = 10  # between two saves of the measurements of one epoch

# The values of one measurement, the arrays behind them, and how they were computed.
Measurement = tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]


def measure(
    run: Run, config: RunConfig | MeasuringConfig, dataset: Dataset, device: torch.device, epochs: Iterable[int]
) -> None:
    """Compute the missing measurements of a run, and save them after each epoch and every ten seconds in between.

    Args:
        run: The run. Its training must have ended.
        config: What to measure.
        dataset: The data that the run was trained on.
        device: The device on which to evaluate the model.
        epochs: The epochs at which to measure. The weights of each must be on disk.

    Raises:
        Damaged: Weights that are needed cannot be read.
    """
    settings = measurement_settings(config, dataset)
    epochs, in_epochs = list(epochs), trained_in_epochs(run.config["model"])
    on_device = lru_cache(lambda where: (restorer(run, dataset, where), dataset.to(where)))
    with tqdm(total=len(epochs) * len(settings), unit=" measures", disable=None, leave=False) as bar:
        for epoch in epochs:
            entries: dict[str, dict[str, Any]] = {}
            arrays: dict[str, np.ndarray] = {}
            restored: dict[torch.device, tuple[Callable[..., Any], MeasuredModel, Preparation | None]] = {}
            last_save = time.perf_counter()
            for name, setting in settings.items():
                key = measurement_key(setting, epoch)
                if key not in run.measures:
                    # Most measures need float64, which MPS does not support.
                    fast = in_epochs and (name == "accuracy" or name in config.regions.subspaces)
                    where = device if fast else float64_device(device)
                    restore, device_dataset = on_device(where)
                    if where not in restored:
                        model = restore(lambda epoch=epoch: run.weights(epoch))
                        preparation = Preparation(model) if isinstance(model, torch.nn.Module) else None
                        measured_model = _measured_model(run, model, device_dataset, where, epoch)
                        restored[where] = model, measured_model, preparation
                    model, measured_model, preparation = restored[where]
                    bar.set_description(f"{name} at epoch {epoch}")
                    start = time.perf_counter()
                    if name in config.regions.subspaces:
                        values, new_arrays, details = _count(model, name, setting, device_dataset, config, preparation)
                    else:
                        values, new_arrays, details = _measure_one(name, setting, model, measured_model, device_dataset)
                        if "initial.pt" in run.damaged:
                            raise files.Damaged(run.damaged["initial.pt"])
                    how = {"device": device_name(where), "seconds": round(time.perf_counter() - start, 3), **details}
                    entries[key] = {"settings": setting, "epoch": epoch, "values": values, "how": how}
                    if columns := _described_columns(name, values):
                        entries[key]["columns"] = columns
                    arrays |= {f"{key}/{array}": value for array, value in new_arrays.items()}
                    if time.perf_counter() - last_save > SAVE_SECONDS:
                        run.save_measures(entries, arrays)
                        entries, arrays, last_save = {}, {}, time.perf_counter()
                bar.update()
            if entries:
                run.save_measures(entries, arrays)


def restorer(run: Run, dataset: Dataset, device: torch.device) -> Callable[[Callable[[], dict]], Callable[..., Any]]:
    """Return the function that restores the run's model; see `ModelKind.restorer`."""
    model = run.config["model"]
    return kind_of(model).restorer(model, run.config.get("seed", 0), dataset, device, run.directory)


def _measured_model(run: Run, model: Callable, dataset: Dataset, device: torch.device, epoch: int) -> MeasuredModel:
    """Return the input of measures for a run at an epoch. A file of weights has no initial weights and no history."""
    measurable, data = kind_of(run.config["model"]).adapt_for_measures(model, dataset)
    if run.epochs_trained == 0:
        return from_dataset(measurable, data, device)

    def initial() -> torch.nn.Module:
        try:
            return cast(torch.nn.Module, restorer(run, dataset, device)(lambda: run.weights(0)))
        except files.Damaged as damage:  # a measure is not undefined because a file is damaged
            run.damaged["initial.pt"] = str(damage)
            raise

    def history() -> list[dict]:
        return run.history().head(epoch).to_dict("records")

    return from_dataset(measurable, data, device, initial, history)


def _measure_one(name: str, setting: dict, model: Callable, measured_model: MeasuredModel, dataset: Dataset) -> Measurement:
    entry = registry.measures[name]
    if entry.traits.get("suite"):
        return *entry.load()(model, dataset, setting), {}
    return measures.value(name, measured_model), {}, {}


def _described_columns(name: str, values: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the registered label and unit of a measure for each of its columns; reports read them from disk."""
    if name not in registry.measures:
        return {}
    traits = registry.measures[name].traits
    described = {key: traits[key] for key in ("label", "unit") if traits.get(key)}
    return {column: described for column in values if not column.endswith("_error")} if described else {}


def _count(
    model: Callable,
    name: str,
    setting: dict,
    dataset: Dataset,
    config: RunConfig | MeasuringConfig,
    preparation: Preparation | None,
) -> Measurement:
    """Count regions in one kind of subspace. If they cannot be counted, only this measurement is undefined."""
    subspace = config.regions.subspaces[name]
    try:
        result = count_regions(
            model,
            draw_vertices(subspace, dataset, config.regions.seed),
            resolution=setting["subspace"]["resolution"],
            method=setting["method"],
            connectivity=setting["connectivity"],
            budget=setting.get("budget"),
            lattice=subspace.lattice,
            preparation=preparation,
        )
    except InputError as error:
        return {"error": one_line(error)}, {}, {}
    return _as_measurement(result)


def _as_measurement(result: RegionCount) -> Measurement:
    values: dict[str, Any] = {
        "region_count": result.mean,
        "region_count_standard_error": result.standard_error,
        "region_entropy": result.entropy,
        "region_share_one": float((result.counts == 1).mean()),
    }
    details = {key: getattr(result, key) for key in ("method", "evaluations", "screening_bound")}
    arrays = {"counts": result.counts, "entropies": result.entropies}
    exact = result.exact
    if exact is None:
        return values, arrays, details
    if isinstance(exact, list):
        return values | {"affine_pieces": float(np.mean([plane.pieces for plane in exact]))}, arrays, details
    arrays |= {name: getattr(exact, name) for name in ("line", "start", "stop", "label", "proved", "most")}
    proved = {"region_share_proved": float(exact.proved.mean())}
    if exact.pieces is not None:
        arrays["pieces"], proved["affine_pieces"] = exact.pieces, float(exact.pieces.mean())
    if exact.proved.min() < 1:  # bounds are not counts and must not enter correlations
        values = {"region_count_at_least": result.mean}
        if np.isfinite(exact.most).all():
            values["region_count_at_most"] = float(exact.most.mean())
    return values | proved, arrays, details


def open_for_measuring(config: MeasuringConfig, dataset_changes: Sequence[str] = ()) -> tuple[Run, Dataset]:
    """Return the run to measure, or the imported weights of a file or of a pretrained model, and its data set.

    Args:
        config: What to measure, and the run, the file of weights or the pretrained model. For a run, `config.model` is set
            to the run's model; for a pretrained model, `config.dataset.output_classes` to the model's classes.
        dataset_changes: Overrides of the run's own data set, such as "dataset.root=DIR".

    Raises:
        InputError: The run has no trained model, was trained on different data, or needs a plugin that was not passed.
    """
    if config.run is None:
        dataset = load_dataset(config.dataset)
        if config.checkpoint is None:
            dataset = _with_classes_of_model(config, dataset)
        check(config, dataset)
        return import_weights(config, dataset), dataset
    directory = Path(cast(str, config.run))
    with _advise_on_damage(directory):
        run = store.load(directory)
        if run.has_weights(None):
            run.weights()
    if run.status != "finished":
        raise InputError(f"{run.directory} is {run.status}: there is no trained model to measure")
    require_plugins(run.config)
    options = parse_dataset(run.config.get("dataset", {}), dataset_changes)
    config.model = parse_model(run.config.get("model", {}))
    config.batch_size = run.config.get("batch_size")
    if not trained_in_epochs(config.model):
        parse_run(run.config, recorded=True)  # checks the recorded options, with which the model is fitted again
    dataset = load_dataset(options)
    check(config, dataset)
    if run.data != dataset.fingerprints["train"]:
        raise InputError(
            f"{run.directory} was trained on different data; pass its own (dataset.root=DIR or dataset.path=FILE)"
        )
    return run, dataset


@contextmanager
def _advise_on_damage(directory: Path) -> Iterator[None]:
    """Add to the message about a damaged file of a run what to do."""
    try:
        yield
    except files.Damaged as damage:
        if not (directory / "run.json").is_file():
            raise
        again = "remove the directory, and measure the file of weights again"
        if not directory.name.startswith("checkpoint-"):
            again = "rerun the train.py or sweep.py command of this run to train it again"
        raise InputError(f"{damage}; {again}") from damage


def _with_classes_of_model(config: MeasuringConfig, dataset: Dataset) -> Dataset:
    """Return the data set of a pretrained model with labels that are indices into the model's outputs."""
    check_pixels(dataset, config.model)
    if config.dataset.output_classes is not None:
        if (needed := output_classes_for(config.model, dataset)) is not None:
            raise InputError(f"dataset.output_classes: the model's classes are {abbreviate(needed)}; leave the option out")
        return dataset
    if (output_classes := output_classes_for(config.model, dataset)) is None:
        return dataset
    config.dataset = config.dataset.model_copy(update={"output_classes": output_classes})
    return with_output_classes(dataset, output_classes)


def import_weights(config: MeasuringConfig, dataset: Dataset) -> Run:
    """Import a file of weights or pretrained weights as a run.

    Their measurements are stored like those of any other run.

    Args:
        config: What to measure.
        dataset: The data set, whose classes are those of the model's outputs.

    Returns:
        The run, which is on disk.

    Raises:
        InputError: The weights cannot be read, or are not those of the model.
    """
    network = build_for(config.model, dataset)
    if config.checkpoint is not None:
        state = load_checkpoint(config.checkpoint, network, config.checkpoint_key)
    else:
        state = pretrained_state(config.model)
        load_state(network, state, f"model={title(config.model)}")
    parts = {"weights": weights.digest_tensors(state), "model": config.model, "data": dataset.fingerprints["train"]}
    if "model" in config.plugin_sources:
        parts["plugins"] = {"model": config.plugin_sources["model"]}
    name, identity = f"checkpoint-{config.model['name']}", identity_of(parts)
    results = Path(config.results)
    with store.lock(store.run_directory(results, name, identity)):
        run = store.find(results, name, identity)
        if run is None:
            recorded_keys = ("dataset", "model", "plugin_sources")
            recorded = {key: value for key, value in as_mapping(config).items() if key in recorded_keys}
            new_run = store.begin(
                results, name, identity, recorded, parts["data"], environment(torch.device("cpu"), "unknown")
            )
            new_run.save_weights(None, state)
            new_run.finish("finished", epochs_trained=0, seconds=0.0)
            run = store.publish(new_run)
    return run


def measure_epochs(run: Run, config: MeasuringConfig, dataset: Dataset, device: torch.device) -> list[int]:
    """Measure a run at the requested epochs.

    Returns:
        The epochs, ending with the last one of the run.

    Raises:
        InputError: Weights are not on disk or damaged.
    """
    last = run.epochs_trained
    stored = [epoch for epoch in (0, *run.snapshot_epochs()) if epoch < last and run.has_weights(epoch)]
    match config.snapshots:
        case "none":
            epochs = []
        case "all":
            epochs = stored
        case listed:
            epochs = [epoch for epoch in listed if epoch != last]
            if missing := [epoch for epoch in epochs if epoch not in stored]:
                raise InputError(f"snapshots={missing}: not stored; on disk are {stored} and the final model ({last})")
    with store.lock(run.directory), _advise_on_damage(run.directory):
        store.repair(run)
        measure(run, config, dataset, device, [*epochs, last])
    return [*epochs, last]
