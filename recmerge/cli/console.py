"""What a command shows: data on stdout, everything else on stderr."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from recmerge.errors import printable
from recmerge.runs.reporter import Bar


class _LineBar:
    """Progress without animation: at most a line every tenth."""

    def __init__(self, label: str, total: int, start: int, show: bool) -> None:
        self.label, self.total, self.done, self.show = label, total, start, show
        self._shown = start * 10 // max(total, 1)

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        tenth = self.done * 10 // max(self.total, 1)
        if self.show and tenth > self._shown:
            self._shown = tenth
            print(f"{self.label}: {self.done}/{self.total} {note}".rstrip(), file=sys.stderr, flush=True)


class _RichBar:
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress, self._task = progress, task

    def advance(self, n: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=n, note=printable(note))


class ConsoleReporter:
    """Says things on stderr; animates only on a terminal.

    Args:
        quiet: Only warnings and errors.
        verbose: Also details.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.warnings: list[str] = []

    def say(self, text: str) -> None:
        """Print a line on stderr unless quiet."""
        if not self.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning on stderr, once."""
        if text not in self.warnings:
            self.warnings.append(text)
            print(printable(f"warning: {text}"), file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, label: str, total: int, start: int = 0) -> Iterator[Bar]:
        """Show a progress bar on stderr."""
        if self.quiet or not animated():
            yield _LineBar(label, total, start, not self.quiet)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(label, total=total, completed=start, note="")
            yield _RichBar(progress, task)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Show a table on stderr; cells are text, never markup."""
        if self.quiet:
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(printable(title)), title_justify="left")
        for i, column in enumerate(columns):
            table.add_column(Text(column), justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*(Text(printable(str(cell))) for cell in row))
        width = None if sys.stderr.isatty() else 160
        Console(stderr=True, width=width).print(table)


def animated() -> bool:
    """Tell whether stderr is a terminal that may be animated."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def emit_json(document: dict[str, Any]) -> None:
    """Print the one JSON document of a `--json` command on stdout."""
    print(json.dumps(document, ensure_ascii=False, allow_nan=False, default=str), flush=True)


def emit(text: str) -> None:
    """Print data on stdout."""
    print(text, flush=True)
