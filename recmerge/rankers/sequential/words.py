"""Items as the words of their attributes, and words hidden to be guessed."""

import torch

from recmerge.lm.encoding import Encoder
from recmerge.names import BRAND, CATEGORY, ITEM_ID, TITLE
from recmerge.rankers.sequential.batches import Batch
from recmerge.rankers.sequential.purchases import COLD, Purchases

KEY, VALUE = 1, 2  # kinds of words; 0: the first place
_KEPT, _RANDOM = 0.1, 0.1  # of the words to be guessed, those that stay as they are, and those another word stands for


def cut_somewhere(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one question of each row.

    Args:
        batch: B rows with a question at every place, or at some.

    Returns:
        (B, T) what was bought before it, 0 from there on, and (B,) what was bought.
    """
    lots = torch.rand(batch.targets.shape, device=batch.items.device).masked_fill(batch.targets == COLD, -1)
    chosen = lots.argmax(1, keepdim=True)
    later = torch.arange(batch.items.shape[1], device=batch.items.device) > chosen
    return batch.items.masked_fill(later, COLD), batch.targets.gather(1, chosen)[:, 0]


def hide(words: torch.Tensor, hidden: torch.Tensor, mark: int) -> torch.Tensor:
    """Return (B, L) what is shown: of the hidden words most as a mark, a few as another word, and a few as they are.

    Args:
        words: (B, L).
        hidden: (B, L) True where a word is to be guessed.
        mark: Stands for a hidden word; all numbers below it are words.

    Returns:
        The words.
    """
    lot = torch.rand(words.shape, device=words.device)
    shown = torch.where(lot < _RANDOM, torch.randint(0, mark, words.shape, device=words.device), mark)
    return torch.where(hidden & (lot < 1 - _KEPT), shown, words)


def attribute_words(encoder: Encoder, purchases: Purchases) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn items into words: the name of each attribute, and what it is.

    Args:
        encoder: Its tokenizer, and where attributes are cut.
        purchases: The domain's.

    Returns:
        (I + 1, W) words, -1 at the ends, and their kinds; row 0 is the cold item's, empty. Attributes that are not known are left out.
    """
    names = dict(zip((TITLE, BRAND, CATEGORY), encoder.plain([TITLE, BRAND, CATEGORY]), strict=True))
    told = {row[ITEM_ID]: row for row in purchases.domain.items.iter_rows(named=True)}
    encoder.learn([told[item][name] for item in purchases.items for name in names if told[item][name]])
    rows = []
    for item in purchases.items:
        row = list[tuple[int, int]]()
        for name, key in names.items():
            if told[item][name]:
                row += [(word, KEY) for word in key] + [(word, VALUE) for word in encoder.title(told[item][name])]
        rows.append(row)
    words = torch.full((len(rows) + 1, max(map(len, rows), default=0) or 1), -1, dtype=torch.int32)
    kinds = torch.zeros(words.shape, dtype=torch.int8)
    for place, row in enumerate(rows, start=1):
        if row:
            words[place, : len(row)], kinds[place, : len(row)] = torch.tensor(row, dtype=torch.int32).T
    return words, kinds
