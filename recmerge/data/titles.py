"""Clean item titles, so that equal titles are equal text."""

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html.entities import html5

ELLIPSIS = "…"
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")  # with its semicolon: "AT&T" is no entity
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # the joiners U+200C and U+200D stay: emoji and some scripts need them
_MAX_DECODED = 4  # `&amp;amp;quot;` is decoded again, endless nesting is not


@dataclass(frozen=True)
class CleanTitles:
    """Titles after cleaning, in the order given.

    Args:
        titles: None where nothing is left.
        n_decoded: Titles in which an HTML entity was decoded.
        n_cut: Titles that were cut.
    """

    titles: list[str | None]
    n_decoded: int
    n_cut: int


def clean_titles(titles: Sequence[str | None], max_chars: int) -> CleanTitles:
    """Clean many titles.

    Args:
        titles: As the source gave them; None where there is none.
        max_chars: Longer ones are cut to this many characters, the last an ellipsis.

    Returns:
        The clean titles and counts.
    """
    cleaned: list[str | None] = []
    n_decoded = n_cut = 0
    for title in titles:
        text = decode_entities(title or "")
        n_decoded += text != (title or "")
        text = plain_line(text)
        if len(text) > max_chars:
            text = text[: max_chars - 1].rstrip() + ELLIPSIS
            n_cut += 1
        cleaned.append(text or None)
    return CleanTitles(cleaned, n_decoded, n_cut)


def decode_entities(text: str) -> str:
    """Decode HTML entities, also those encoded more than once.

    Args:
        text: Any text.

    Returns:
        The text; an ampersand without a known entity behind it stays.
    """
    for _ in range(_MAX_DECODED):
        decoded = _ENTITY.sub(_decode, text)
        if decoded == text:
            break
        text = decoded
    return text


def _decode(match: re.Match[str]) -> str:
    entity = match[0]
    # `html.unescape` would turn the unknown `&notes;` into `¬es;`: of names only whole ones are meant
    return html.unescape(entity) if entity[1] == "#" or entity[1:] in html5 else entity


def plain_line(text: str) -> str:
    """Return text in NFC on one line: no control or invisible characters, single spaces, no lone surrogates."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    visible = _INVISIBLE.sub("", whole)
    spaced = "".join(" " if unicodedata.category(c) == "Cc" else c for c in visible)
    return unicodedata.normalize("NFC", " ".join(spaced.split()))
