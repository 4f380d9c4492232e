"""The texts that a language model reads; the only module that knows them.

Titles come in as data. `lm.encoding` turns these texts into tokens and never lets a title become a control token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase

SEPARATOR = "||"  # of WeaveRec's published lists
# What candidates may be called where the answer is a label, in this order; letters, for most tokenizers split numbers into digits.
LABELS = (*ascii_uppercase, *ascii_lowercase, *(a + b for a in ascii_uppercase for b in ascii_uppercase))


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


BULLET = "- "  # before a title of a yes-or-no question
YES, NO = "Yes", "No"
# Source: Bao et al., TALLRec, RecSys 2023; structure only, the words are ours.
_YES_NO_SYSTEM = f"You say {YES} or {NO}."
_YES_NO_QUESTION = f"{YES} or {NO}: is this bought next?"
_LISTWISE_SYSTEM = "You recommend what a customer buys next."
_LISTWISE_QUESTION = "Which of the candidates does the customer buy next? Answer with its title alone."
_INDEX_QUESTION = "Which of the candidates does the customer buy next? Answer with its letters alone."
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
    return _listed(history, [f"- {title}" for title in candidates], _LISTWISE_QUESTION)


def render_index(history: Sequence[str], candidates: Sequence[str], labels: Sequence[str]) -> Chat:
    """Ask for the label of one candidate, given the history.

    Args:
        history: Titles, oldest first; may be empty.
        candidates: Titles, each once.
        labels: What each is called.

    Returns:
        The question; the answer is one label.
    """
    return _listed(history, [f"{label}. {title}" for label, title in zip(labels, candidates, strict=True)], _INDEX_QUESTION)


def _listed(history: Sequence[str], candidates: Sequence[str], question: str) -> Chat:
    lines = ["Bought so far, oldest first:", *(f"- {title}" for title in history), "", "Candidates:", *candidates, "", question]
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


def render_yes_no(history: Sequence[str]) -> Chat:
    """Ask whether a candidate is bought next; its title goes behind the question's last words.

    Args:
        history: Titles, oldest first; may be empty.

    Returns:
        The question; the answer is `YES` or `NO`.
    """
    lines = ["Bought so far:", *(f"{BULLET}{title}" for title in history), _YES_NO_QUESTION, BULLET]
    return Chat(_YES_NO_SYSTEM, "\n".join(lines))


def render_answer(titles: Sequence[str]) -> str:
    """Return the published answer: titles joined by `||`; one title stands for itself."""
    return SEPARATOR.join(titles)
