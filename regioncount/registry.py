"""Registries: for each kind of part (model, data set, ...), a table from names to factories and their options.

An entry holds dotted paths, which are imported at first use: listing names does not import torch. The module that
declares a built-in part registers it. A user's module registers parts with `rc.register_model` and similar functions,
and is imported with plugins=[module] on the command line.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from regioncount import plugins
from regioncount.columns import check_measure_name
from regioncount.errors import InputError, how_to_install, one_line
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
            plugin = plugins.registering_plugin()
            if plugin is not None:
                self._import_declarations()  # so that a plugin cannot use the name of a built-in part
            existing = self._entries.get(name)
            # In an interactive session, a part may be registered again after a change.
            redefined = existing is not None and existing.plugin == plugin and not plugins.is_importing()
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
        self._import_declarations()
        return name in self._entries

    def __getitem__(self, name: str) -> Entry:
        """Return the entry of a name.

        Raises:
            InputError: There is no such part; the message lists the names and suggests the closest one.
        """
        if name not in self:
            message = unknown_choice(self.kind, name, self.names())
            raise InputError(message if "did you mean" in message else f"{message}, or pass plugins=[MODULE] to register it")
        return self._entries[name]

    def get(self, name: str) -> Entry | None:
        """Return the entry of a name, or None."""
        return self._entries[name] if name in self else None

    def entries(self) -> list[Entry]:
        """Return the entries that have been registered so far."""
        return list(self._entries.values())

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


def session_plugins() -> set[str]:
    """Return the modules that have registered parts in this session without `load_plugins`, such as a notebook."""
    tables = (models, datasets, optimizers, schedules, augmentations, subspaces, measures, trackers)
    names = {entry.plugin for table in tables for entry in table.entries()}
    return {plugin for plugin in names if plugin is not None and not plugins.is_loaded(plugin)}


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
