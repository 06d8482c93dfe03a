"""Extensions: additions to Refit that live in other packages.

An extension is a module, or an object inside one, with the attributes that its kind requires. It is
found by name, in this order:

1. a built-in: a module in the package of the kind; dropping a file there is enough;
2. an entry point of an installed package, in the kind's group;
3. a dotted name in the config, such as ``acme.refit.source`` or ``acme.refit:SOURCE``.
"""

import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType
from typing import Any

from refit.errors import RefitError, UsageError
from refit.progress import log_message


@dataclass(frozen=True)
class ExtensionKind:
    """One kind of extension.

    Attributes:
        name: Its name in messages, such as ``source``.
        group: The entry point group of installed packages, such as ``refit.sources``.
        package: The package whose modules are the built-in extensions.
        needs: Attributes that every extension of this kind must have.
        advice: What messages about a missing package add, such as where else it must be.
    """

    name: str
    group: str
    package: str
    needs: tuple[str, ...]
    advice: str = ""

    def builtin_names(self) -> tuple[str, ...]:
        """Sorted names of the built-in extensions."""
        spec = importlib.util.find_spec(self.package)
        paths = spec.submodule_search_locations if spec else None
        return tuple(sorted(m.name for m in pkgutil.iter_modules(paths or ()) if m.name[0] != "_"))

    def names(self) -> tuple[str, ...]:
        """Sorted names of the built-in extensions and of the entry points of installed packages."""
        return tuple(sorted({*self.builtin_names(), *_offered(self.group)}))

    def load(self, name: str) -> Any:
        """Import an extension.

        Args:
            name: A built-in's name, an entry point's name, or a dotted name.

        Raises:
            UsageError: There is no such extension, it cannot be imported, or it lacks an attribute
                that its kind requires.
        """
        if name in self.builtin_names():
            found, path = self._import(f"{self.package}.{name}"), name
        elif name in _offered(self.group):
            point = _offered(self.group)[name]
            found, path = self._import(point.value), point.value
        elif "." in name or ":" in name:
            found, path = self._import(name), name
        else:
            raise UsageError(self.explain_unknown(name))
        missing = [attribute for attribute in self.needs if not hasattr(found, attribute)]
        if missing:
            raise UsageError(f"{self.name} {path!r} lacks {', '.join(missing)}")
        return found

    def is_known(self, name: str) -> bool:
        """Whether ``name`` may be an extension of this kind; nothing is imported."""
        return name in self.names() or "." in name or ":" in name

    def explain_unknown(self, name: str) -> str:
        """The message for an unknown name: the closest known name, and all known names."""
        close = get_close_matches(name, self.names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        own = f"or a dotted name of your own, such as acme.refit.{name}"
        if name.isidentifier() and importlib.util.find_spec(name):
            own = (
                f"the module {name} has no dot in its name: put it into a package and write "
                f"acme.{name}, or name an object in it, {name}:NAME"
            )
        return (
            f"unknown {self.name} {name!r}: {hint}known: {', '.join(self.names())}; {own}; "
            f"{self._where_to_install()}"
        )

    def _where_to_install(self) -> str:
        here = f"a package must be installed in this environment, {sys.prefix}"
        return f"{here}; {self.advice}" if self.advice else here

    def _import(self, path: str) -> Any:
        module, _, attribute = path.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in filter(None, attribute.split(".")):
                found = getattr(found, part)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"{self.name} {path!r} cannot be imported: {error}; "
                f"{self._where_to_install()}, or its folder must be on PYTHONPATH"
            ) from error
        except Exception as error:  # whatever the code of others raises when it is imported
            _log_traceback(error)
            raise UsageError(
                f"{self.name} {path!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        return found


def naming(
    extension: str, advice: str, passes: Callable[[Exception], bool] = lambda error: False
) -> AbstractContextManager[None]:
    """Make every error of an extension's code a RefitError that names it.

    A RefitError keeps its class; the traceback of any other error is logged.

    Args:
        extension: Its kind and name, such as ``source 'acme'``.
        advice: What to do about an error in its code, such as ``correct it``.
        passes: Which errors are raised as they are.
    """
    return _Naming(extension, advice, passes)


class _Naming(AbstractContextManager[None]):
    """A class: requests enter it several times each, and a generator costs thrice as much."""

    __slots__ = ("_advice", "_extension", "_passes")

    def __init__(self, extension: str, advice: str, passes: Callable[[Exception], bool]) -> None:
        self._extension, self._advice, self._passes = extension, advice, passes

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, Exception) or self._passes(error):
            return
        is_ours = isinstance(error, RefitError)
        if is_ours and str(error).startswith(self._extension):
            return
        if is_ours:
            raise type(error)(f"{self._extension}: {error}") from error
        _log_traceback(error)  # whatever the code of others raises
        raise RefitError(
            f"{self._extension} failed with {type(error).__name__}: {error}; {self._advice}"
        ) from error


def _log_traceback(error: Exception) -> None:
    log_message("".join(traceback.format_exception(error)))


@cache
def _offered(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}
