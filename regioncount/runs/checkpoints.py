"""Read the weights of a network from a checkpoint that another program wrote. No code in the file is executed."""

import argparse
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regioncount.errors import InputError, how_to_install, one_line, say
from regioncount.runs.files import Damaged
from regioncount.runs.foreign_files import check_foreign_file

# The keys under which programs store the weights in a checkpoint. The first one that the file has is read.
WEIGHT_KEYS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema")
# Prefixes of wrappers and of modules that hold the network: DataParallel, torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
OUTSIDE = "\0"  # marks names that do not have the prefix which was removed from the others
LISTED = 5  # the most names in a message
# Numbers of numpy and the options of argparse beside the weights; creating them runs no code of the file.
SAFE_TYPES: list[Any] = [
    *(argparse.Namespace, np.dtype, np.ndarray),
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")),
    *(
        (function, f"numpy.{core}.multiarray.{name}")  # the names in files of numpy 1 and 2
        for core in ("core", "_core")
        for name, function in (("scalar", np.float64(0).__reduce__()[0]), ("_reconstruct", np.zeros(1).__reduce__()[0]))
    ),
]


def load_checkpoint(path: str | os.PathLike[str], network: nn.Module, key: str | None = None) -> dict[str, Tensor]:
    """Load the weights in a checkpoint into a network, and return them.

    The file was written by `torch.save` or by safetensors. The weights are the whole file, or under one of its keys. A
    prefix of `PREFIXES` that the network's names do not have is removed. What is not loaded is printed on standard error.

    Args:
        path: The file.
        network: The network, which is changed.
        key: The key of the weights, such as "model_ema"; None for the first of `WEIGHT_KEYS` or, without them, the
            whole file.

    Returns:
        The state dictionary, with the names of the network.

    Raises:
        InputError: The file is missing or damaged, contains other objects than tensors and plain values, has no such key, or
            its weights are not those of the network.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint={path}: no such file")
    content = _read(path)
    states = [name for name, value in content.items() if _is_state(value)]
    if key is not None and key not in states:
        listed = f"those of weights are {_listed(states)}" if states else "it has none"
        raise InputError(f"checkpoint_key={key}: not a key of weights in {path}; {listed}")
    key = key or next((name for name in WEIGHT_KEYS if name in states), None)
    state = dict(content if key is None else content[key])
    if not _is_state(state):
        raise InputError(_without_state(path, content))
    own = network.state_dict()
    needed = {name for name in own if not name.endswith("num_batches_tracked")}  # not in files of torch before 0.4.1
    loaded = next((named for named in _renamed(state) if needed <= named.keys()), None)
    if loaded is None:
        raise InputError(_difference(path, own, state))
    not_loaded = [name for name in loaded if name not in own]
    if inside := [name for name in not_loaded if not name.startswith(OUTSIDE)]:
        raise InputError(f"checkpoint={path}: the model has no {_listed(inside)}; choose the model that was trained")
    weights = own | {name: loaded[name] for name in own if name in loaded}
    if wrong := [name for name in own if weights[name].shape != own[name].shape]:
        shapes = f"{tuple(weights[wrong[0]].shape)}, not {tuple(own[wrong[0]].shape)} as in the model"
        raise InputError(f"checkpoint={path}: the weights do not fit the model: {wrong[0]} has the shape {shapes}")
    for name, tensor in own.items():
        _require_values(path, name, weights[name], tensor.is_floating_point())
    others = [*(name for name in content if key and name != key), *(name.removeprefix(OUTSIDE) for name in not_loaded)]
    if others:
        source = f"the weights under {key!r}" if key else "the weights"
        if other := next((name for name in states if name != key), None):
            source += f" (checkpoint_key={other} reads those under {other!r})"
        say(f"checkpoint={path}: read {source}; not loaded: {_listed(others)}", sys.stderr)
    network.load_state_dict(weights)
    return weights


def _is_state(content: Any) -> bool:
    """Return whether an object is a dictionary of tensors by name, and not empty."""
    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())


def _require_values(path: Path, name: str, tensor: Tensor, is_floating_point: bool) -> None:
    """Raise an InputError if a weight has no values, or if loading it would change them, as those of quantized networks."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        kind = "without values" if tensor.is_meta else "complex" if tensor.is_complex() else "sparse or quantized"
        raise InputError(f"checkpoint={path}: {name} is {kind} ({tensor.dtype}); save dense floating point weights")
    if is_floating_point and not (tensor.is_floating_point() and tensor.itemsize > 1):  # quantized, with a scale elsewhere
        raise InputError(f"checkpoint={path}: {name} is {tensor.dtype}; save floating point weights (float16 or larger)")


def _renamed(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the weights under their own names, and without each sequence of prefixes that some of them have."""
    yield dict(state)
    for prefix in PREFIXES:
        inner = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
        outside = {f"{OUTSIDE}{name}": value for name, value in state.items() if not name.startswith(prefix)}
        if inner:
            yield from ({**named, **outside} for named in _renamed(inner))


def _read(path: Path) -> dict[Any, Any]:
    """Return the dictionary in a file.

    Raises:
        Damaged: The file cannot be read.
        InputError: It contains other objects, or the package that reads it is not installed.
    """
    try:
        check_foreign_file(path)
        if path.suffix == ".npz":
            tensors = "{name: torch.as_tensor(value) for name, value in numpy.load(FILE).items()}"
            raise InputError(f"{path} is a file of NumPy arrays; save tensors: torch.save({tensors}, NEW_FILE)")
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            return _read_safetensors(content, path)
        with torch.serialization.safe_globals(SAFE_TYPES):
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # the unpickler and the archive reader raise many types of exceptions
        if named := re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error)):
            command = f'torch.save(torch.load("{path}", weights_only=False)["state_dict"], NEW_FILE)'
            raise InputError(
                f"checkpoint={path} contains Python objects ({named[1]}), which are not loaded because they can run code; "
                f"save the weights alone: {command}, which runs any code in the file (in a file of a whole model, "
                '.state_dict() in place of ["state_dict"])'
            ) from error
        raise Damaged(f"{path} is not a file of weights, or is truncated ({type(error).__name__})") from error
    if isinstance(state, nn.Module) or not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        kind = type(state).__name__
        raise InputError(
            f"{path} is not a state dictionary, but has the type {kind}; save one with torch.save(model.state_dict(), FILE)"
        )
    return dict(state)


def _read_safetensors(content: bytes, path: Path) -> dict[Any, Any]:
    try:
        from safetensors.torch import load
    except ImportError as error:
        installation = how_to_install("safetensors", "safetensors")
        raise InputError(f"checkpoint={path}: reading it needs safetensors: {installation}") from error
    try:
        return dict(load(content))
    except Exception as error:
        raise Damaged(f"{path} is not a file of safetensors, or is truncated ({one_line(error, 100)})") from error


def _without_state(path: Path, content: Mapping[str, Any]) -> str:
    """Return a message that says where weights are expected, and how to save those that are elsewhere."""
    key = next((key for key in WEIGHT_KEYS if isinstance(content.get(key), Mapping)), None)
    state, place = (content, "") if key is None else (content[key], f" under {key!r}")
    others = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if 2 * len(others) < len(state):
        kind = type(state[others[0]]).__name__
        return (
            f"checkpoint={path}: the weights{place} are not all tensors: {_listed(others)} ({kind}); save the others alone"
        )
    if others and all(isinstance(state[name], np.ndarray) for name in others):
        part = "" if key is None else f"[{key!r}]"
        loaded = f'torch.load("{path}", weights_only=False){part}'
        tensors = f"{{name: torch.as_tensor(value) for name, value in {loaded}.items()}}"
        return f"checkpoint={path}: the weights{place} are NumPy arrays; save tensors: torch.save({tensors}, NEW_FILE)"
    states = [name for name, value in content.items() if _is_state(value)]
    advice = f"pass checkpoint_key={states[0]}" if states else "save the weights alone: torch.save(model.state_dict(), FILE)"
    return (
        f"checkpoint={path} is not a state dictionary of tensors: its keys are {_listed(list(content)) or 'none'}, and "
        f"weights are read under {', '.join(WEIGHT_KEYS)}; {advice}"
    )


def _foreign_prefix(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return the prefix without which most names of the file are those of the model; empty if there is none."""
    ends = {name: [other for other in state if other.endswith(f".{name}")] for name in own}
    prefixes = Counter(other.removesuffix(name) for name, others in ends.items() for other in others)
    prefix, number = max(prefixes.items(), key=lambda item: item[1], default=("", 0))
    return prefix if 2 * number > len(own) else ""


def _difference(path: Path, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return a message that names the weights which are only in the model or only in the file."""
    message = f"checkpoint={path}: the weights do not fit the model: "
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    candidates: list[tuple[dict[str, Tensor], str, str]] = [(named, "", "") for named in _renamed(state)]
    if prefix := _foreign_prefix(own, state):
        clause = f"the names in the file begin with {prefix!r}, those of the model do not"
        without = {
            name.removeprefix(prefix) if name.startswith(prefix) else OUTSIDE + name: value for name, value in state.items()
        }
        candidates.append((without, clause, f"name.removeprefix({prefix!r})"))
    if prefix := _foreign_prefix(state, own):
        clause = f"the model's names begin with {prefix!r}, those in the file do not"
        candidates.append(({prefix + name: value for name, value in state.items()}, clause, f"{prefix!r} + name"))
    closest, clause, renamed = max(candidates, key=lambda candidate: len(own.keys() & candidate[0].keys()))
    missing = [name for name in own if name in needed and name not in closest]
    if clause and not missing:
        return f"{message}{clause}; save {{{renamed}: value for name, value in weights.items()}}"
    message += f"{clause}, and " if clause else ""
    message += f"the file has no {_listed(missing)}"
    other = [name.removeprefix(OUTSIDE) for name in closest if name not in own]
    if same := [name for name in other if name in missing]:
        message += f" ({_listed(same)} only without the prefix of the others)"
    other = [name for name in other if name not in missing]
    return f"{message}; the model has no {_listed(other)}" if other else message


def _listed(names: list[Any]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(one_line(name, 100) for name in names[:LISTED]) + more
