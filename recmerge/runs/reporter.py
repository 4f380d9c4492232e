"""How library code tells its user what it does, without printing."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """A progress bar."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Move on by `n` units; `note` is shown beside the bar."""


class Reporter(Protocol):
    """What a stage may say while it runs."""

    def say(self, text: str) -> None:
        """Tell the user something."""

    def warn(self, text: str) -> None:
        """Tell the user something they should not miss."""

    def bar(self, label: str, total: int, start: int = 0) -> AbstractContextManager[Bar]:
        """Return a context manager that shows a bar of `total` units, `start` of them done."""


class _SilentBar:
    def advance(self, n: int = 1, note: str = "") -> None:
        pass


class SilentReporter:
    """Says nothing, keeps warnings; for library use and tests."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def say(self, text: str) -> None:
        """Ignore `text`."""

    def warn(self, text: str) -> None:
        """Remember `text` in `warnings`."""
        self.warnings.append(text)

    @contextmanager
    def bar(self, label: str, total: int, start: int = 0) -> Iterator[Bar]:
        """Show nothing."""
        yield _SilentBar()
