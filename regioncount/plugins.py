"""Plugins: the modules of a user that register parts, imported with plugins=[MODULE] on the command line."""

import hashlib
import importlib
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

from regioncount.errors import InputError, one_line, raised_by_signal

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


def is_importing() -> bool:
    """Return whether `load_plugins` is importing a module."""
    return _importing.get() is not None


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


def registering_plugin() -> str | None:
    """Return the plugin whose code is registering a part; None if the code belongs to this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in (__name__, "regioncount.registry"):
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
