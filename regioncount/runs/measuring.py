"""Measurements of a run: what is asked for, what has been measured already, and the rest."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from regioncount import data, measures
from regioncount.config import (
    MeasuringConfig,
    RunConfig,
    Subspace,
    as_mapping,
    parse_dataset,
    parse_model,
    parse_run,
)
from regioncount.errors import InputError, one_line
from regioncount.measures.subject import Subject, from_dataset
from regioncount.models import classical, two_layer
from regioncount.regions import (
    count_regions,
    extend_segments,
    label_planes,
    random_directions,
    sample_indices,
    shorten_segments,
)
from regioncount.regions.evaluation import lay_out
from regioncount.runs import store
from regioncount.runs.environment import device_name, environment
from regioncount.runs.identity import identity_of, measurement_key
from regioncount.runs.loading import build_model, check, load_dataset, load_state
from regioncount.runs.measurements import measured_values, measurement_settings
from regioncount.runs.store import Run

SAVE_SECONDS = 10


def measure(
    found: Run, config: RunConfig | MeasuringConfig, dataset: data.Dataset, device: torch.device, epochs: Iterable[int]
) -> None:
    """Measure what the configuration asks for at each epoch, where it has not been.

    What was measured goes to disk at the end of an epoch, and every ten seconds before.
    """
    settings = measurement_settings(config, dataset)
    epochs = list(epochs)
    model = None
    here = dataset.to(device)
    with tqdm(total=len(epochs) * len(settings), unit=" measures", disable=None, leave=False) as bar:
        for epoch in epochs:
            entries, arrays = {}, {}
            subject = None
            saved = time.perf_counter()
            for name, setting in settings.items():
                key = measurement_key(setting, epoch)
                if key not in found.measures:
                    if subject is None:
                        model = _model_at(found, dataset, device, epoch, model)
                        subject = _subject(found, model, here, device, epoch)
                    bar.set_description(f"{name} at epoch {epoch}")
                    start = time.perf_counter()
                    measured, counts, account = _measure_one(name, setting, subject, here, config)
                    how = {"device": device_name(device), "seconds": round(time.perf_counter() - start, 3), **account}
                    entries[key] = {"settings": setting, "epoch": epoch, "values": measured, "how": how}
                    arrays |= {f"{key}/{array}": value for array, value in counts.items()}
                    if time.perf_counter() - saved > SAVE_SECONDS:
                        found.save_measures(entries, arrays)
                        entries, arrays, saved = {}, {}, time.perf_counter()
                bar.update()
            if entries:
                found.save_measures(entries, arrays)


def draw_vertices(subspace: Subspace, dataset: data.Dataset, seed: int) -> Tensor:
    """The subspaces of a configuration, (S, d + 1, C, H, W), normalized; the same for every model of a comparison."""
    generator = torch.Generator().manual_seed(seed)
    split = dataset.train if subspace.split == "train" else dataset.test
    dimension = subspace.dimension if subspace.kind == "simplex" else 1
    chosen = sample_indices(len(split), dimension, subspace.number, generator)
    indices, places = chosen.unique(return_inverse=True)
    images = dataset.normalize(split.take(indices))
    vertices = images[places.to(images.device)]
    match subspace.kind:
        case "short_segment":
            return shorten_segments(vertices, generator)
        case "wider_scope":
            return extend_segments(vertices, subspace.start, subspace.stop)
        case "random_direction":
            return random_directions(vertices[:, 0], subspace.scale, generator)
    return vertices


def _placed(found: Run, dataset: data.Dataset, device: torch.device) -> torch.nn.Module:
    """A run's network where it is to be evaluated, its weights still to be loaded."""
    return lay_out(build_model(found.config["model"], dataset).to(device))


def _model_at(
    found: Run, dataset: data.Dataset, device: torch.device, epoch: int | None = None, network: torch.nn.Module | None = None
) -> Callable:
    """A run's model at an epoch, by default the last: its network (`network`, if it has been built) with the weights of
    then, or its classical classifier, fitted again.

    dataset: as of `load_dataset`.
    """
    if classical.is_classical(found.config["model"]):
        return classical.fit(found.config["model"], found.config["seed"], dataset)
    network = _placed(found, dataset, device) if network is None else network
    load_state(network, found.weights(epoch), found.directory)
    return network


def _subject(found: Run, model: Callable, dataset: data.Dataset, device: torch.device, epoch: int) -> Subject:
    """A run at an epoch as its measures see it; a file of weights has neither a beginning nor a history."""
    trained = found.epochs_trained > 0

    def initial() -> torch.nn.Module:
        start = _placed(found, dataset, device)
        load_state(start, found.weights(0), found.directory)
        return start

    def history() -> list[dict]:
        return found.history().head(epoch).to_dict("records")

    return from_dataset(model, dataset, device, *((initial, history) if trained else ()))


def _measure_one(name, setting, subject, dataset, config) -> tuple[dict, dict[str, np.ndarray], dict]:
    """The values of one measure, the arrays behind them, and how they were made."""
    if setting["measure"] == "seed_agreement":
        return {}, {"labels": _plane_labels(setting, subject.model, dataset)}, {}
    if setting["measure"] != "region_count":
        theoretical = isinstance(subject.model, two_layer.TwoLayer)
        if name == "theorem" and theoretical:
            return *two_layer.measure(subject.model, classical.features(dataset.normalize(dataset.train.images))), {}
        if name == "theorem":
            return {"theorem_bound": math.nan, "theorem_bound_error": "it is a measure of model=two_layer"}, {}, {}
        network = isinstance(subject.model, torch.nn.Module) and not theoretical
        return measures.value(name, subject) if network else classical.value(name, subject.model, dataset), {}, {}
    subspace = config.regions.subspaces[name]
    try:
        result = count_regions(
            subject.model,
            draw_vertices(subspace, dataset, config.regions.seed),
            resolution=setting["subspace"]["resolution"],
            method=setting["method"],
            connectivity=setting["connectivity"],
            budget=setting.get("budget"),
        )
    except InputError as error:
        return {"error": one_line(error)}, {}, {}  # this cell of the table is empty; the others need not be
    measured = {
        "region_count": result.mean,
        "region_count_standard_error": result.standard_error,
        "region_entropy": result.entropy,
        "region_share_one": float((result.counts == 1).mean()),
    }
    account = {key: getattr(result, key) for key in ("method", "evaluations", "screening_bound")}
    arrays = {"counts": result.counts, "entropies": result.entropies}
    if result.exact is None:
        return measured, arrays, account
    exact = result.exact
    if isinstance(exact, list):
        return measured | {"affine_pieces": float(np.mean([plane.pieces for plane in exact]))}, arrays, account
    arrays |= {name: getattr(exact, name) for name in ("line", "start", "stop", "label", "proved", "most")}
    proved = {"region_share_proved": float(exact.proved.mean())}
    if exact.pieces is not None:
        arrays["pieces"], proved["affine_pieces"] = exact.pieces, float(exact.pieces.mean())
    if exact.proved.min() < 1:  # a bound is no count, and goes into no correlation
        measured = {"region_count_at_least": result.mean}
        if np.isfinite(exact.most).all():
            measured["region_count_at_most"] = float(exact.most.mean())
    return measured | proved, arrays, account


def _plane_labels(setting: dict, model: Callable, dataset: data.Dataset) -> np.ndarray:
    """Labels, uint16 (S, n, n), in planes through three training images, the same ones for every run."""
    planes = Subspace(kind="simplex", dimension=2, number=setting["planes"])
    triangles = draw_vertices(planes, dataset, setting["seed"])
    return label_planes(model, triangles, setting["resolution"], setting["method"])[0].astype(np.uint16)


def open_for_measuring(config: MeasuringConfig, dataset_changes: Sequence[str] = ()) -> tuple[Run, data.Dataset]:
    """The run, or the imported file of weights, that is to be measured, and its data.

    dataset_changes: overrides such as "dataset.root=DIR" of the run's own data set. Raises InputError where the run has no
    model to measure, or the data are not those it was trained on.
    """
    if config.checkpoint is not None:
        check(config, load_dataset(config.dataset))
        return import_checkpoint(config), load_dataset(config.dataset)
    found = store.load(config.run)
    if found.status != "finished":
        raise InputError(f"{found.directory} is {found.status}: there is no trained model to measure")
    settings = parse_dataset(found.config.get("dataset"), dataset_changes)
    config.model = parse_model(found.config.get("model"))
    if classical.is_classical(config.model):
        parse_run(found.config)  # it is fitted again, by all that is said there
    dataset = load_dataset(settings)
    check(config, dataset)
    if found.data != dataset.fingerprints["train"]:
        raise InputError(f"{found.directory} was trained on other data than dataset.root={settings.root} holds")
    return found, dataset


def import_checkpoint(config: MeasuringConfig) -> Run:
    """A file of weights as a run of its own, so that what is measured of it is kept like any other run's."""
    state = store.load_weights(config.checkpoint)
    dataset = load_dataset(config.dataset)
    model = build_model(config.model, dataset)
    load_state(model, state, config.checkpoint)
    parts = {"weights": store.digest_tensors(state), "model": config.model, "data": dataset.fingerprints["train"]}
    name, identity = f"checkpoint-{config.model['name']}", identity_of(parts)
    results = Path(config.results)
    with store.lock(store.place(results, name, identity)):
        found = store.find(results, name, identity)
        if found is None:
            recorded = {key: value for key, value in as_mapping(config).items() if key in ("dataset", "model")}
            begun = store.begin(
                results, name, identity, recorded, parts["data"], environment(torch.device("cpu"), "unknown")
            )
            begun.save_weights(None, state)
            begun.finish("finished", epochs_trained=0, seconds=0.0)
            found = store.publish(begun)
    return found


def measure_epochs(found: Run, config: MeasuringConfig, dataset: data.Dataset, device: torch.device) -> list[int]:
    """Measure a run at the epochs that are asked for, and return these."""
    last = found.epochs_trained
    kept = [epoch for epoch in (0, *found.snapshot_epochs()) if epoch < last and found.has_weights(epoch)]
    match config.snapshots:
        case "none":
            epochs = []
        case "all":
            epochs = kept
        case listed:
            epochs = [epoch for epoch in listed if epoch != last]
            if missing := [epoch for epoch in epochs if epoch not in kept]:
                raise InputError(f"snapshots={missing}: not kept; on disk are {kept} and the final model ({last})")
    with store.lock(found.directory):
        measure(found, config, dataset, device, [*epochs, last])
    return [*epochs, last]


def describe(found: Run, config: RunConfig | MeasuringConfig, dataset: data.Dataset, epochs: Sequence[int]) -> str:
    """What was measured, as a table to read: a row a quantity, a column an epoch, accuracies in percent."""
    columns, undefined = {}, {}
    for epoch in epochs:
        row = measured_values(found, config, dataset, epoch)
        shown = {}
        for name in ("train_accuracy", "test_accuracy", "generalization_gap"):
            if name in row:
                shown[f"{name} %"] = f"{100 * row[name]:.2f}"
        for name in ("train_loss", "test_loss"):
            if name in row:
                shown[name] = "undefined" if f"{name}_error" in row else f"{row[name]:.4f}"
        for subspace in config.regions.subspaces:
            if f"region_share_proved_{subspace}" in row:
                shown[f"proved {subspace} %"] = f"{100 * row[f'region_share_proved_{subspace}']:.2f}"
            if f"affine_pieces_{subspace}" in row:
                shown[f"affine pieces {subspace}"] = f"{row[f'affine_pieces_{subspace}']:.1f}"
            if (mean := row.get(f"region_count_{subspace}")) is None:
                missing = row.get(f"region_count_{subspace}_error", "not measured")
                found_bounds = [(word, row.get(f"region_count_{subspace}_at_{word}")) for word in ("least", "most")]
                told = ", ".join(f"at {word} {bound:.4g}" for word, bound in found_bounds if bound is not None)
                shown[f"region_count {subspace}"] = told or missing
                continue
            shown[f"region_count {subspace}"] = f"{mean:.3f} ± {row[f'region_count_{subspace}_standard_error']:.3f}"
            shown[f"region_entropy {subspace}"] = f"{row[f'region_entropy_{subspace}']:.3f}"
            shown[f"in one region {subspace} %"] = f"{100 * row[f'region_share_one_{subspace}']:.1f}"
        for name in config.measures:
            if name in row:
                shown[name] = "undefined" if f"{name}_error" in row else f"{row[name]:.5g}"
            if f"{name}_error" in row:
                undefined.setdefault(f"{name}: {row[f'{name}_error']}")
        columns[f"epoch {epoch}"] = shown
    lines = [f"{found.directory}: {found.status}, {dataset.name}, {found.config['model']['name']}"]
    lines += [pd.DataFrame(columns).to_string()] if any(columns.values()) else []
    lines += undefined
    return "\n".join(lines)


def decision_regions(found: Run, dataset: data.Dataset, device: torch.device, seed: int = 0, resolution: int = 150):
    """Labels (n, n) in the plane through three training images of different classes, and where these lie in the picture."""
    generator = torch.Generator().manual_seed(seed)
    triples = sample_indices(len(dataset.train), 2, 100, generator)
    labels = dataset.train.labels.cpu()
    distinct = [triple for triple in triples if len(labels[triple].unique()) == 3]
    chosen = (distinct or triples)[0]
    triangle = dataset.normalize(dataset.train.take(chosen)).to(device)
    plane, positions = label_planes(_model_at(found, dataset, device), triangle[None], resolution)
    return plane[0], positions[0]
