"""The options of a data set that follow from a model's pretrained weights."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from regioncount.data.sources import DatasetOptions
from regioncount.errors import InputError
from regioncount.models.catalogue import asks_for_weights
from regioncount.models.kinds import title
from regioncount.registry import models

if TYPE_CHECKING:
    from regioncount.models.pretrained import Preprocessing


def with_preprocessing(model: Mapping[str, Any], dataset: DatasetOptions) -> tuple[dict[str, Any], DatasetOptions]:
    """Return a model with the names of its weights resolved, and its data set with the preprocessing of the weights.

    Models of packages without pretrained weights, and their data sets, are returned as they are.

    Args:
        model: The name and options of the model.
        dataset: The options of the data set.

    Raises:
        InputError: The weights are unknown, or an option of the data set differs from their preprocessing.
    """
    entry = None if "_target_" in model else models.get(model["name"])
    if entry is None or "pretrained" not in entry.traits:
        return dict(model), dataset

    from regioncount.models.pretrained import source_of

    source = source_of(model)
    assert source is not None
    resolved = source.resolve(model)
    if not asks_for_weights(resolved):
        return resolved, dataset
    return resolved, _prepared(dataset, _preprocessing(tuple(resolved.items())), title(resolved))


@lru_cache(maxsize=16)  # the runs of a sweep share their weights
def _preprocessing(model: tuple[tuple[str, Any], ...]) -> "Preprocessing":
    from regioncount.models.pretrained import source_of

    source = source_of(dict(model))
    assert source is not None
    return source.preprocessing(dict(model))


def _prepared(dataset: DatasetOptions, needed: "Preprocessing", name: str) -> DatasetOptions:
    changes: dict[str, Any] = {**vars(needed), "mean": list(needed.mean), "std": list(needed.std)}
    if "squash" in type(dataset).model_fields:
        changes["squash"] = needed.squash
    for option, value in changes.items():
        given = getattr(dataset, option)
        if given not in (None, False) and given != value:
            text = "null" if value is None else str(value).lower()
            raise InputError(
                f"dataset.{option}={str(given).lower()}: the pretrained weights of model={name} need {text}; "
                "leave the option out"
            )
    if needed.resampling == "bilinear":
        del changes["resampling"]
    return type(dataset).model_validate(dataset.model_dump(by_alias=True) | {"resampling": None} | changes)
