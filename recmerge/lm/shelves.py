"""What a small base model reads: titles side by side as a catalogue or a buyer puts them."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_MIN_SHELF = 4  # items of a category or brand that make a shelf
_LONGEST = 256  # titles drawn from a shelf at most


@dataclass(frozen=True)
class CatalogueItem:
    """One item's text.

    Args:
        domain: Its catalogue.
        title: Cleaned title.
        brand: Empty where unknown.
        category: Empty where unknown.
    """

    domain: str
    title: str
    brand: str = ""
    category: str = ""


class Source(Protocol):
    """Draws lists of titles that belong together."""

    def draw(self, rng: random.Random) -> list[int]:
        """Return item indices in the order in which their titles are read."""


class Shelves:
    """Titles of one category, one brand, or one whole catalogue, in random order, none twice.

    Args:
        items: The catalogues.
        shelf_share: Share of the draws from a category or brand, in [0, 1]; the rest are of a whole catalogue.
    """

    def __init__(self, items: Sequence[CatalogueItem], shelf_share: float) -> None:
        self.shelf_share = shelf_share
        groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        domains: dict[str, list[int]] = defaultdict(list)
        for index, item in enumerate(items):
            domains[item.domain].append(index)
            for kind, value in (("category", item.category), ("brand", item.brand)):
                if value and value.casefold() != "unknown":
                    groups[item.domain, kind, value].append(index)
        self.domains = [d for _, d in sorted(domains.items())]
        self.domain_weights = [len(d) for d in self.domains]
        self.groups = [g for _, g in sorted(groups.items()) if len(g) >= _MIN_SHELF]
        self.group_weights = [math.sqrt(len(g)) for g in self.groups]

    def draw(self, rng: random.Random) -> list[int]:
        """Return the items of one shelf."""
        if self.groups and rng.random() < self.shelf_share:
            group = rng.choices(self.groups, self.group_weights)[0]
        else:
            group = rng.choices(self.domains, self.domain_weights)[0]
        return rng.sample(group, min(len(group), _LONGEST))


class Histories:
    """What buyers of other domains bought, one after another: training events only.

    Args:
        histories: Item indices of each buyer, oldest first; those of fewer than two items are left out.
        max_history: Longest stretch drawn, in items.

    Raises:
        ValueError: No history has two items.
    """

    def __init__(self, histories: Sequence[Sequence[int]], max_history: int) -> None:
        self.histories = [list(h) for h in histories if len(h) > 1]
        self.max_history = max_history
        if not self.histories:
            raise ValueError("no history has two items")

    def draw(self, rng: random.Random) -> list[int]:
        """Return a stretch of one buyer's history, in its order."""
        history = self.histories[rng.randrange(len(self.histories))]
        start = rng.randrange(max(0, len(history) - self.max_history) + 1)
        return history[start : start + self.max_history]


def lay_out(chosen: Sequence[int], titles: Sequence[tuple[int, ...]], start: Sequence[int], end: int, max_length: int) -> list[int]:
    """Lay titles out as an `open` prompt: start, title, end, title, end ... up to max_length tokens.

    Args:
        chosen: Indices into titles.
        titles: Token ids of every title.
        start: Ids that a sequence begins with.
        end: The id behind every title.
        max_length: Most tokens; a title that does not fit is left out, and past half of them the sequence ends there.

    Returns:
        The ids.
    """
    ids = list(start)
    for index in chosen:
        piece = titles[index]
        if len(ids) + len(piece) + 1 > max_length:
            if len(ids) > max_length // 2:
                break
            continue
        ids += [*piece, end]
    return ids
