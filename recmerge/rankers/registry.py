"""The table of rankers, whose heavy entries are imported when they are first asked for."""

import ast
from collections.abc import Iterator, Mapping, MutableMapping
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import recmerge
from recmerge.rankers.protocol import Ranker

_FOLLOWED = ("recmerge.rankers.", "recmerge.lm.", "recmerge.data.prompts")


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


@lru_cache(maxsize=64)
def sources(module: str) -> tuple[str, ...]:
    """Return the files of rankers, language models and prompts that a ranker's scores depend on.

    Args:
        module: Of the ranker's class.

    Returns:
        Paths below recmerge, sorted: its own and those it imports, directly or not. None where it lies outside the package.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        spec = find_spec(name) if name.startswith(_FOLLOWED) and name not in found else None
        if spec is not None and spec.origin is not None:
            found[name] = Path(spec.origin)
            tree = ast.parse(found[name].read_text(encoding="utf-8"))
            waiting += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    root = Path(recmerge.__file__).parent
    return tuple(sorted(path.relative_to(root).as_posix() for path in found.values()))
