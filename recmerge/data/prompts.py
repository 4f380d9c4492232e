"""The texts that a language model reads; the only module that knows them.

Titles come in as data. `lm.encoding` turns these texts into tokens and never lets a title become a control token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SEPARATOR = "||"  # of WeaveRec's published lists


@dataclass(frozen=True)
class Chat:
    """One question to the model.

    Args:
        system: The system turn.
        user: The user turn.
    """

    system: str
    user: str


@dataclass(frozen=True)
class Wording:
    """The words of a published prompt, around its two lists in brackets.

    Args:
        system: The system turn.
        before: Of the user turn, up to the bracket that opens the history.
        between: From the bracket that closes the history to the one that opens the candidates.
        after: From the bracket that closes the candidates.
    """

    system: str
    before: str
    between: str
    after: str


_LISTWISE_SYSTEM = "You recommend what a customer buys next."
_LISTWISE_QUESTION = "Which of the candidates does the customer buy next? Answer with its title alone."
# Source: Hou et al. (WeaveRec), released code; structure only, the words are ours.
PUBLISHED_WORDING = Wording(
    system="You are a helpful recommendation assistant.",
    before="The user's purchase history is: [",
    between="]\nFrom the candidates below, pick the top 5 items that the user is most likely to purchase next, sorted from most to "
    "least likely.\nCandidates: [",
    after=f"]\nThe top 5 titles, joined by {SEPARATOR}, are:",
)


def render_listwise(history: Sequence[str], candidates: Sequence[str]) -> Chat:
    """Ask for one candidate, given the history; a title has no line break, so a line is a field.

    Args:
        history: Titles, oldest first; may be empty.
        candidates: Titles in their stored order.

    Returns:
        The question; the answer is one title.
    """
    lines = ["Bought so far, oldest first:", *(f"- {title}" for title in history)]
    lines += ["", "Candidates:", *(f"- {title}" for title in candidates), "", _LISTWISE_QUESTION]
    return Chat(_LISTWISE_SYSTEM, "\n".join(lines))


def render_published(history: Sequence[str], candidates: Sequence[str], wording: Wording = PUBLISHED_WORDING) -> Chat:
    """Ask for the five best candidates in the structure of WeaveRec's published prompts.

    Args:
        history: Titles, oldest first.
        candidates: Titles in their stored order.
        wording: The words around them.

    Returns:
        The question; the answer is five titles joined by `||`.
    """
    return Chat(wording.system, f"{wording.before}{SEPARATOR.join(history)}{wording.between}{SEPARATOR.join(candidates)}{wording.after}")


def render_answer(titles: Sequence[str]) -> str:
    """Return the published answer: titles joined by `||`; one title stands for itself."""
    return SEPARATOR.join(titles)
