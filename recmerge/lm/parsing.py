"""Read a model's written answer against the candidates, and count what does not fit."""

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from recmerge.data.prompts import SEPARATOR


@dataclass(frozen=True)
class Parsed:
    """A written answer.

    Args:
        places: For each candidate its 1-based place in the answer, or None where it is not named.
        n_titles: Titles in the answer.
        malformed: No title could be read at all.
        n_off_list: Titles that are no candidate.
        n_repeated: Titles named before.
    """

    places: tuple[int | None, ...]
    n_titles: int
    malformed: bool
    n_off_list: int
    n_repeated: int


def parse_answer(text: str, candidates: Sequence[str]) -> Parsed:
    """Match an answer's titles with the candidates, one by one, in their order.

    A title off the list keeps its place, so what stands behind it does not move up. Spelling is compared after
    HTML entities, Unicode form and spaces are made alike; nothing is matched by likeness.

    Args:
        text: What the model wrote: one title, or titles joined by `||`.
        candidates: Candidate titles.

    Returns:
        Places and counts.
    """
    wanted: dict[str, list[int]] = {}
    for index, title in enumerate(candidates):
        wanted.setdefault(_plain(title), []).append(index)
    titles = [t for t in (_plain(part) for part in _split(text, wanted)) if t]
    places: list[int | None] = [None] * len(candidates)
    off_list = repeated = 0
    for place, title in enumerate(titles, start=1):
        if title not in wanted:
            off_list += 1
        elif places[wanted[title][0]] is not None:
            repeated += 1
        else:
            for index in wanted[title]:
                places[index] = place
    return Parsed(tuple(places), len(titles), not titles, off_list, repeated)


def chosen_answer(places: Sequence[Sequence[str]], candidates: Sequence[str]) -> Parsed:
    """Return an answer that could name nothing but candidates.

    Args:
        places: By place, best first, the titles that stand there.
        candidates: Candidate titles.

    Returns:
        Places; malformed only where there are none, as nothing was written.
    """
    place_of = {title: place for place, alike in enumerate(places, start=1) for title in alike}
    return Parsed(tuple(place_of.get(title) for title in candidates), len(places), not places, 0, 0)


def _split(text: str, wanted: dict[str, list[int]]) -> list[str]:
    """Titles of the answer; a candidate that itself holds `||` is not cut."""
    if _plain(text) in wanted:
        return [text]
    return text.split(SEPARATOR)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", html.unescape(text)).split())
