"""Side effects of a model: modules in training mode, and parameters and buffers that a forward pass changes."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.utils.parametrize import ParametrizationList

from regioncount.errors import InputError
from regioncount.regions.evaluation import Model, require_values

# The modules of torch that compute something else in training mode.
MODE_DEPENDENT = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.RNNBase, nn.MultiheadAttention),
    ParametrizationList,
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)

ADVICE = "a model must give one answer for each input: call model.eval(), and remove noise from its forward pass"


@dataclass(frozen=True)
class _Stored:
    """A parameter or a buffer of a module before the check."""

    module: nn.Module
    own: dict[str, Tensor | None]
    """The module's dictionary of parameters or buffers, which holds it."""
    name: str
    full_name: str
    """With the name of the module, for messages."""
    tensor: Tensor | None
    copy: Tensor | None


class _Watch:
    """The parameters and buffers of modules, and whether they are the modules' own.

    `torch.func.functional_call` replaces them during a call. A module inside another callable is first seen during a call,
    so its tensors may be replacements: they are its own only if it is seen with those that it had before a later call.
    """

    def __init__(self) -> None:
        self.modules: set[nn.Module] = set()
        self.stored: dict[tuple[int, str], _Stored] = {}
        self.owned: set[tuple[int, str]] = set()
        self.before_call: dict[tuple[int, str], Tensor | None] = {}

    def remember(self, module: nn.Module, prefix: str, owned: bool) -> None:
        """Copy the parameters and buffers of a module that is not known yet."""
        if module in self.modules:
            return
        self.modules.add(module)
        for own in (_own(module, "_parameters"), _own(module, "_buffers")):
            for name, tensor in own.items():
                key, full_name = (id(own), name), f"{prefix or type(module).__name__}.{name}"
                copy = tensor.detach().clone() if tensor is not None and _has_values(tensor) else None
                self.stored[key] = _Stored(module, own, name, full_name, tensor, copy)
                if owned:
                    self.owned.add(key)

    def start_call(self) -> None:
        """Record which tensors the modules have before a call of the model."""
        unknown = ((key, stored) for key, stored in self.stored.items() if key not in self.owned)
        self.before_call = {key: stored.own.get(stored.name) for key, stored in unknown}

    def enter(self, module: nn.Module) -> None:
        """Record, during a call, that a module runs with the tensors that it had before the call."""
        for own in (_own(module, "_parameters"), _own(module, "_buffers")):
            for name, tensor in own.items():
                if (key := (id(own), name)) in self.before_call and self.before_call[key] is tensor:
                    self.owned.add(key)

    def restore(self) -> list[str]:
        """Restore what has changed.

        Returns:
            The names of what had changed.
        """
        return [stored.full_name for key, stored in self.stored.items() if _restore(stored, key in self.owned)]


@contextmanager
def watch_modules(model: Model) -> Generator[Model]:
    """Refuse modules that are in training mode, and parameters and buffers that change, inside the block.

    Modules inside another callable are found by a hook that torch calls before each module. What has changed is restored.

    Yields:
        The model, to be called in the block.

    Raises:
        InputError: If a module is in training mode, before it runs; or if a parameter or a buffer has changed.
    """
    watch = _Watch()

    def before_forward(module: nn.Module, _: Any) -> None:
        if module not in watch.modules:
            require_values(module)
        if getattr(module, "training", False) and _depends_on_mode(module):
            raise InputError(f"the model calls a {type(module).__name__} in training mode; {ADVICE}")
        watch.enter(module)
        watch.remember(module, "", owned=False)

    def watched(inputs: Tensor) -> Any:
        watch.start_call()
        return model(inputs)

    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        watch.remember(module, name, owned=True)
    handle = register_module_forward_pre_hook(before_forward)
    try:
        with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):  # the hook would cause recompilation
            warnings.filterwarnings("ignore", "Using `torch.compile")
            yield watched
    finally:
        handle.remove()
        changed = watch.restore()
    if changed:
        raise InputError(f"the model changes {changed[0]} during evaluation, such as running statistics; {ADVICE}")


def _has_values(tensor: Tensor) -> bool:
    """Return whether a tensor can be copied and compared after a call: those inside `torch.vmap` and `grad` cannot."""
    try:
        tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return False
    return True


def _own(module: nn.Module, kind: str) -> dict[str, Tensor | None]:
    """Return the dictionary of a module's own parameters or buffers. A scripted module has none."""
    tensors = getattr(module, kind, None)
    return tensors if isinstance(tensors, dict) else {}


def _restore(stored: _Stored, owned: bool) -> bool:
    """Restore a parameter or a buffer of a module.

    A tensor that is not known to be the module's own does not replace the one that the module has.

    Returns:
        Whether it had changed.
    """
    own, name, tensor, copy = stored.own, stored.name, stored.tensor, stored.copy
    replaced = owned and (name not in own or own[name] is not tensor)
    if replaced:
        vars(stored.module).pop(name, None)  # a tensor that the model has set after deleting this one
        own[name] = tensor
    if tensor is None or copy is None:
        return replaced
    if (tensor.shape, tensor.dtype, tensor.device) != (copy.shape, copy.dtype, copy.device):
        tensor.data = copy
        return True
    if _equal_values(tensor, copy):
        return replaced
    with torch.no_grad():
        tensor.copy_(copy)
    return True


def _equal_values(tensor: Tensor, other: Tensor) -> bool:
    """Return whether two tensors of one shape and type are equal, where NaN equals NaN."""
    if torch.equal(tensor, other):
        return True
    return tensor.is_floating_point() and bool(((tensor == other) | (tensor.isnan() & other.isnan())).all())


def _depends_on_mode(module: nn.Module) -> bool:
    """Return whether a module may compute something else in training mode: most modules of torch do not."""
    return isinstance(module, MODE_DEPENDENT) or not type(module).__module__.startswith("torch.")
