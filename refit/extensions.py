"""Extensions: what a team adds to Refit from its own packages, without changing Refit.

An extension is a module, or an object inside one, that has the attributes its kind asks for. It is
found by name, in this order:

1. a built-in: a module in the kind's own package; dropping a file there is enough;
2. an entry point of an installed package, in the kind's group;
3. a dotted name in the config, such as ``acme.refit.source`` or ``acme.refit:SOURCE``.
"""

import importlib
import importlib.util
import pkgutil
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from refit.errors import UsageError


@dataclass(frozen=True)
class ExtensionKind:
    """One kind of thing that can be added.

    Attributes:
        name: What messages call it, such as ``source``.
        group: The entry point group of installed packages, such as ``refit.sources``.
        package: The package whose modules are the built-in ones.
        needs: Attributes that every extension of this kind has.
    """

    name: str
    group: str
    package: str
    needs: tuple[str, ...]

    def names(self) -> tuple[str, ...]:
        """Names of the built-in extensions and of those that installed packages offer, sorted."""
        return tuple(sorted({*self._builtin_names(), *_offered(self.group)}))

    def load(self, name: str) -> Any:
        """Import an extension.

        Args:
            name: A built-in's name, an entry point's name, or a dotted name.

        Raises:
            UsageError: There is no such extension, it cannot be imported, or it lacks an attribute
                that its kind needs.
        """
        if name in self._builtin_names():
            found, place = importlib.import_module(f"{self.package}.{name}"), name
        elif name in _offered(self.group):
            point = _offered(self.group)[name]
            found, place = self._import(point.value), point.value
        elif "." in name or ":" in name:
            found, place = self._import(name), name
        else:
            raise UsageError(self.explain_unknown(name))
        missing = [attribute for attribute in self.needs if not hasattr(found, attribute)]
        if missing:
            raise UsageError(f"{self.name} {place!r} lacks {', '.join(missing)}")
        return found

    def is_known(self, name: str) -> bool:
        """Whether ``name`` can be an extension of this kind; nothing is imported."""
        return name in self.names() or "." in name or ":" in name

    def explain_unknown(self, name: str) -> str:
        """The message for a name that is not known: the closest name, and all of them."""
        close = get_close_matches(name, self.names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return (
            f"unknown {self.name} {name!r}: {hint}known: {', '.join(self.names())}; "
            f"or a dotted name of your own, such as acme.refit.{name}"
        )

    def _builtin_names(self) -> tuple[str, ...]:
        spec = importlib.util.find_spec(self.package)
        places = spec.submodule_search_locations if spec else None
        return tuple(m.name for m in pkgutil.iter_modules(places or ()) if m.name[0] != "_")

    def _import(self, place: str) -> Any:
        module, _, attribute = place.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in filter(None, attribute.split(".")):
                found = getattr(found, part)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise UsageError(
                f"{self.name} {place!r} cannot be imported: {error}; "
                "install its package in this environment, or put its folder on PYTHONPATH"
            ) from error
        return found


@cache
def _offered(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}
