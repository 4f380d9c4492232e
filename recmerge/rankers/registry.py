"""The table of rankers, whose heavy entries are imported when they are first asked for."""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module

from recmerge.rankers.protocol import Ranker


class Registry(MutableMapping[str, type[Ranker]]):
    """Rankers by name; looking at names imports nothing.

    Args:
        entries: Name to a class, or to "module:class".
    """

    def __init__(self, entries: Mapping[str, type[Ranker] | str]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> type[Ranker]:
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, made = entry.partition(":")
            entry = self._entries[name] = getattr(import_module(module), made)
        return entry

    def __setitem__(self, name: str, ranker: type[Ranker]) -> None:
        self._entries[name] = ranker

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries
