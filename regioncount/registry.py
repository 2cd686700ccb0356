"""Registries: for each kind of part (model, data set, ...), a table from names to factories and their options.

An entry holds dotted paths, which are imported at first use: listing names does not import torch. The module that
declares a built-in part registers it. A user's module registers parts with `rc.register_model` and similar functions,
and is imported with plugins=[module] on the command line.
"""

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from regioncount.columns import check_measure_name
from regioncount.errors import InputError, how_to_install, one_line, raised_by_signal
from regioncount.suggestions import unknown_choice

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One registered part."""

    kind: str
    """The kind of part in messages and on the command line, such as "optimizer"."""
    name: str
    factory: str | Callable[..., Any]
    """The callable that builds the part, or its dotted path "package.module:attribute"."""
    options: str | type | None = None
    """A pydantic model of the part's options, or its dotted path; by default the factory's keyword arguments."""
    base_options: str = "regioncount.options:Options"
    """The dotted path of a pydantic model of the options that all parts of the kind have."""
    traits: Mapping[str, Any] = field(default_factory=dict)
    """Properties that the kind of part defines, such as `scale_invariant` for measures."""
    plugin: str | None = None
    """The plugin module that registered the part; None for a built-in part."""
    passed: frozenset[str] = frozenset()
    """Arguments of the factory that the package passes, so that they are not options."""

    def load(self) -> Callable[..., Any]:
        """Import and return the factory; raise InputError if a plugin's dotted path names nothing."""
        try:
            return resolve(self.factory)
        except (ImportError, AttributeError) as error:
            if self.plugin is None:
                raise
            raise InputError(f"{self.kind}={self.name}: {self.factory} cannot be imported ({one_line(error)})") from error

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result of the factory.

        Raises:
            InputError: The factory of a plugin raised an exception; the message names it.
        """
        try:
            return self.load()(*args, **kwargs)
        except InputError:
            raise
        except Exception as error:
            if self.plugin is None:
                raise
            reason = one_line(f"{type(error).__name__}: {error}")
            raise InputError(f"{self.kind}={self.name}: the plugin {self.plugin} raised {reason}") from error


class Registry:
    """A table of parts of one kind.

    Args:
        kind: The name of the kind in messages and on the command line, such as "optimizer".
        declared_in: Modules that register the built-in parts, imported at the first lookup. For a package, all of its
            modules are imported.
        base_options: The dotted path of a pydantic model of the options that all parts of the kind have.
        passed: Arguments of factories that the package passes, so that they are not options.
        rank: A function that returns the sort key of an entry. By default, parts are listed as they were registered.
    """

    def __init__(
        self,
        kind: str,
        declared_in: Sequence[str],
        base_options: str = "regioncount.options:Options",
        passed: Sequence[str] = (),
        rank: Callable[[Entry], Any] | None = None,
    ) -> None:
        self.kind = kind
        self.base_options = base_options
        self.passed = frozenset(passed)
        # Names become parts of paths and columns. Dashes and dots are allowed where a name is only part of a path.
        self._names = r"[A-Za-z0-9_]+" if kind in ("measures", "subspace") else r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
        self._declared_in = list(declared_in)
        self._rank = rank
        self._entries: dict[str, Entry] = {}

    def register(
        self,
        name: str,
        factory: str | Callable[..., Any] | None = None,
        *,
        options: str | type | None = None,
        **traits: Any,
    ) -> Callable[[Any], Any]:
        """Register a part, directly or as a decorator of its factory.

        Args:
            name: The part's name.
            factory: The callable that builds the part, or its dotted path "package.module:attribute". If omitted, a
                decorator is returned.
            options: A pydantic model of the part's options, or the model's dotted path. If omitted, the options are the
                factory's keyword arguments.
            **traits: Properties that the kind of part defines.

        Returns:
            The factory, or the decorator.

        Raises:
            InputError: The name is invalid or already registered, or the factory is neither a callable nor a string.
        """
        if not re.fullmatch(self._names, name):
            raise InputError(f"{self.kind}={name}: a name consists of letters, digits and underscores; choose another one")

        def add(factory: Any) -> Any:
            if not isinstance(factory, str) and not callable(factory):
                raise InputError(f"{self.kind}={name}: register a callable or its dotted path, not {factory!r}")
            plugin = _registering_plugin()
            if plugin is not None:
                self._import_declarations()  # so that a plugin cannot use the name of a built-in part
            existing = self._entries.get(name)
            # In an interactive session, a part may be registered again after a change.
            redefined = existing is not None and existing.plugin == plugin and _importing.get() is None
            if existing is not None and (existing.plugin is None or not redefined):
                owner = f"the plugin {existing.plugin}" if existing.plugin else "regioncount itself"
                raise InputError(f"{self.kind}={name}: {owner} has registered this name; choose another one")
            self._entries[name] = Entry(self.kind, name, factory, options, self.base_options, traits, plugin, self.passed)
            return factory

        return add if factory is None else add(factory)

    def names(self) -> tuple[str, ...]:
        """Return the names of all parts by rank, then in the order in which they were registered."""
        self._import_declarations()
        if self._rank is None:
            return tuple(self._entries)
        return tuple(entry.name for entry in sorted(self._entries.values(), key=self._rank))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> Entry:
        """Return the entry of a name.

        Raises:
            InputError: There is no such part; the message lists the names and suggests the closest one.
        """
        if name not in self.names():
            message = unknown_choice(self.kind, name, self.names())
            raise InputError(message if "did you mean" in message else f"{message}, or pass plugins=[MODULE] to register it")
        return self._entries[name]

    def get(self, name: str) -> Entry | None:
        """Return the entry of a name, or None."""
        return self._entries[name] if name in self.names() else None

    def _import_declarations(self) -> None:
        while self._declared_in:
            module = importlib.import_module(self._declared_in.pop(0))
            for path in getattr(module, "__path__", ()):
                for file in sorted(Path(path).glob("[!_]*.py")):
                    importlib.import_module(f"{module.__name__}.{file.stem}")


def _measure_rank(entry: Entry) -> tuple[bool, bool, bool]:
    """Return a measure's sort key: scale-invariant measures first, then the others, the suite's, and those of plugins."""
    return entry.plugin is not None, bool(entry.traits.get("suite")), entry.traits.get("scale_invariant") is not True


models = Registry("model", ["regioncount.models.catalogue"], passed=("num_classes", "in_channels", "image_size"))
datasets = Registry("dataset", ["regioncount.data.sources"], "regioncount.data.sources:DatasetOptions", passed=("options",))
optimizers = Registry(
    "optimizer",
    ["regioncount.training.catalogue"],
    "regioncount.training.catalogue:OptimizerOptions",
    passed=("params", "lr", "weight_decay"),
)
schedules = Registry("schedule", ["regioncount.training.catalogue"], passed=("optimizer", "epochs"))
augmentations = Registry("augmentation", ["regioncount.training.catalogue"])
subspaces = Registry("subspace", ["regioncount.data.subspaces"], "regioncount.data.subspaces:SubspaceOptions")
measures = Registry("measures", ["regioncount.measures", "regioncount.runs.suite_measures"], rank=_measure_rank)
trackers = Registry("tracker.mode", ["regioncount.runs.trackers"])

register_model = models.register
register_dataset = datasets.register
register_optimizer = optimizers.register
register_schedule = schedules.register
register_augmentation = augmentations.register
register_subspace = subspaces.register
register_tracker = trackers.register


def register_measure(
    *,
    scale_invariant: bool | None = None,
    name: str | None = None,
    label: str | None = None,
    unit: str | None = None,
    **traits: Any,
) -> Callable[[F], F]:
    """Return a decorator that registers a function of a measured model as a generalization measure.

    Args:
        scale_invariant: Whether the measure stays the same when one layer is multiplied by a and the next by 1 / a, which
            does not change the network's function. None if unknown.
        name: The name of the measure and of its column; by default the function's name.
        label: The column's label in tables and figures.
        unit: The unit of the values in tables and figures.
        **traits: Other properties of the measure.

    Returns:
        The decorator.
    """

    def add(function: F) -> F:
        column = name or function.__name__
        check_measure_name(column)
        all_traits = {"scale_invariant": scale_invariant, "label": label, "unit": unit, **traits}
        measures.register(column, function, **all_traits)
        return function

    return add


def require_package(entry: Entry) -> None:
    """Check that the package named by an entry's trait "requires" is installed.

    The message names the extra of regioncount in the trait "extra" that installs it, if there is one.

    Raises:
        InputError: The package is not installed.
    """
    package = entry.traits.get("requires")
    # `find_spec` also finds a directory of this name, such as W&B's output, as a namespace package. That has no origin.
    if package and getattr(find_spec(package), "origin", None) is None:
        installation = how_to_install(package, entry.traits.get("extra"))
        raise InputError(f"tracker={entry.name} needs {package}: {installation}; or pass tracker=disabled")


def resolve(reference: Any) -> Any:
    """Import the object at a dotted path "package.module:attribute"; return anything but a string unchanged."""
    if not isinstance(reference, str):
        return reference
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


# Plugins

_importing: ContextVar[str | None] = ContextVar("importing", default=None)
_plugins: dict[str, ModuleType] = {}


def load_plugins(names: Sequence[str], option: str | None = None) -> None:
    """Import the modules that register a user's parts. The current directory is searched, too.

    Args:
        names: Dotted names of modules.
        option: The option that names them, for messages; by default plugins=[NAME].

    Raises:
        InputError: A module cannot be imported.
        SystemExit: A handler of a signal raised it.
    """
    for name in names:
        if name in _plugins:
            continue
        given = option or f"plugins=[{name}]"
        if not all(part.isidentifier() for part in name.split(".")):
            raise InputError(f"{given}: give the name of a module, such as my_plugin for my_plugin.py")
        token = _importing.set(name)
        try:
            if str(Path.cwd()) not in sys.path:
                sys.path.append(str(Path.cwd()))
            _plugins[name] = importlib.import_module(name)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            if raised_by_signal(error):
                raise
            reason = one_line(f"{type(error).__name__}: {error}")
            raise InputError(f"{given}: the module {name} cannot be imported ({reason})") from error
        finally:
            _importing.reset(token)


def is_loaded(plugin: str) -> bool:
    """Return whether `load_plugins` has imported a module."""
    return plugin in _plugins


def plugin_source(plugin: str) -> str:
    """Return "module:hash" of a plugin; the hash is the SHA-256 of the names and contents of its .py files.

    For a module of a package, these are all files of the outermost package.

    Raises:
        InputError: The plugin has no source files, so changes to it could not be detected.
    """
    module = sys.modules[plugin.partition(".")[0]]
    root = Path(getattr(module, "__file__", None) or plugin)
    folders = [Path(path) for path in getattr(module, "__path__", ())]
    files = sorted(file for folder in folders for file in folder.rglob("*.py")) or [root]
    if not all(file.suffix == ".py" and file.is_file() for file in files):
        raise InputError(f"plugins=[{plugin}]: a plugin is identified by its .py files, but {root} is not one")
    digest = hashlib.sha256()
    for file in files:
        relative = next((file.relative_to(folder) for folder in folders if file.is_relative_to(folder)), Path(file.name))
        digest.update(f"{relative.as_posix()}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return f"{plugin}:{digest.hexdigest()}"


def _registering_plugin() -> str | None:
    """Return the plugin whose code is registering a part; None if the code belongs to this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    module = frame.f_globals.get("__name__", "")
    package = module.split(".")[0]
    if package == "regioncount":
        return None
    importing = _importing.get()
    if importing is None or importing.split(".")[0] == package:
        return importing or module
    # A plugin imports another module that registers parts: that module is their plugin.
    _plugins.setdefault(module, sys.modules[module])
    return module
