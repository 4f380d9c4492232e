"""What candidates are called where an answer is a label: texts of one token each."""

from collections.abc import Callable, Sequence

from recmerge.data.prompts import LABELS
from recmerge.errors import ConfigError

Label = tuple[str, int]


def one_token_labels(encode: Callable[[Sequence[str]], Sequence[Sequence[int]]], unknown: int | None) -> tuple[Label, ...]:
    """Return the labels that a tokenizer has as one token each.

    Args:
        encode: Gives the ids of each text.
        unknown: The id of what the tokenizer does not know.

    Returns:
        Text and id of each, no two ids alike, letters first.
    """
    found = dict[int, str]()
    for label, ids in zip(LABELS, encode(LABELS), strict=True):
        if len(ids) == 1 and ids[0] != unknown:
            found.setdefault(ids[0], label)
    return tuple((label, i) for i, label in found.items())


def first_labels(labels: Sequence[Label], n: int) -> Sequence[Label]:
    """Return the labels of n candidates.

    Args:
        labels: All that there are.
        n: How many are needed.

    Returns:
        The first n.

    Raises:
        ConfigError: There are fewer.
    """
    if n > len(labels):
        raise ConfigError(
            f"prompt.style=index: {n} candidates need a label of one token each, and this tokenizer has {len(labels)}",
            fix="use prompt.style=listwise, or fewer candidates",
        )
    return labels[:n]
