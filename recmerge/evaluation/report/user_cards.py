"""How a page shows users: what it draws, apart from where that comes from, so that pages without users need no data frames."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Proposal:
    """A candidate as the page shows it.

    Args:
        title: Its title.
        is_target: Mark it as what was bought.
        ranks: Its rank by each run, as text.
    """

    title: str
    is_target: bool
    ranks: Sequence[str]


@dataclass(frozen=True)
class User:
    """A user as the page shows it.

    Args:
        heading: Who, and why this one.
        past: What the history is.
        history: Titles, oldest first.
        proposals: Candidates with their ranks.
    """

    heading: str
    past: str
    history: Sequence[str]
    proposals: Sequence[Proposal]


@dataclass(frozen=True)
class Users:
    """A section of users with their history and candidates.

    Args:
        title: Its heading.
        runs: Names of the runs that rank.
        users: From top to bottom.
        note: By which rule they were chosen, and how to read the ranks.
    """

    title: str
    runs: Sequence[str]
    users: Sequence[User]
    note: str
