"""Cells and what they depend on; a cell is one `recmerge` command."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("build", "mix", "train", "merge", "infer", "eval")  # each uses only results of kinds before it
FUSE_FLAG = "--fuse"
FUSED_LABEL = "fused"  # the label of an evaluation's fused system, in its cell's labels


@dataclass(frozen=True)
class Use:
    """A place in a command line where results of other cells are named.

    Args:
        keys: The cells whose results stand here.
        flag: A flag before them, left out with them where none of them exists.
        joined: One comma-separated word instead of one word each.
        only_with: Cells without which it is left out.
    """

    keys: tuple[str, ...]
    flag: str = ""
    joined: bool = False
    only_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One command of an ablation.

    Args:
        kind: One of `KINDS`.
        name: The run name it writes.
        command: The words after `recmerge`; results of other cells stand as `Use`.
        needs: Cells without which it cannot run.
        wants: Cells it uses where they exist; it needs at least one of them.
        extras: Cells it uses where they exist, and can do without.
        labels: What the cell is about, for tables: system, target, settings.
    """

    kind: str
    name: str
    command: tuple["str | Use", ...]
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name in the graph, e.g. "train beauty_sports"."""
        return f"{self.kind} {self.name}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The cells that come before it."""
        return (*self.needs, *self.wants, *self.extras)

    def words(self, refs: Mapping[str, str]) -> list[str]:
        """Write the command line.

        Args:
            refs: How to name the result of each cell that has one.

        Returns:
            The words after `recmerge`.
        """
        words: list[str] = []
        for part in self.command:
            if isinstance(part, str):
                words.append(part)
                continue
            named = [refs[key] for key in part.keys if key in refs]
            if named and all(key in refs for key in part.only_with):
                words += [part.flag] if part.flag else []
                words += [",".join(named)] if part.joined else named
        return words


class Graph:
    """Cells by key, in an order in which they can run."""

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}

    def add(self, cell: Cell) -> str:
        """Add a cell whose inputs are there already; the same cell twice is one.

        Args:
            cell: The cell.

        Returns:
            Its key.

        Raises:
            ValueError: Two different commands would write one run name, or an input is not in the graph.
        """
        known = self.cells.get(cell.key)
        if known is not None and known.command != cell.command:
            raise ValueError(f"two different commands would write '{cell.key}'")
        missing = [key for key in cell.inputs if key not in self.cells]
        if missing:
            raise ValueError(f"cell '{cell.key}' comes before its input '{missing[0]}'")
        self.cells.setdefault(cell.key, cell)
        return cell.key

    def sort(self) -> None:
        """Bring the cells into the order of the stages, which is one in which they can run."""
        self.cells = dict(sorted(self.cells.items(), key=lambda item: KINDS.index(item[1].kind)))

    def __iter__(self) -> Iterator[Cell]:
        return iter(self.cells.values())

    def __len__(self) -> int:
        return len(self.cells)

    def counts(self) -> dict[str, int]:
        """Return the number of cells of every kind."""
        return {kind: sum(cell.kind == kind for cell in self) for kind in KINDS}

    def commands(self) -> list[list[str]]:
        """Return every command line, each result named by its run name."""
        names = {key: cell.name for key, cell in self.cells.items()}
        return [cell.words(names) for cell in self]


@dataclass
class Outcome:
    """What became of a cell.

    Args:
        state: waiting, already done, done, failed, or skipped (an input failed).
        words: The command line it ran as.
        result: The command's JSON document.
        error: The error's line, where it failed or was skipped.
        seconds: Wall time of the work; of the earlier one where it was already done.
    """

    state: str = "waiting"
    words: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether its run exists."""
        return self.state in {"done", "already done"}
