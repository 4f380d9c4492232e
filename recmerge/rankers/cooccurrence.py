"""The floor that counts: what was bought by those who bought the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors.numpy import load_file, save_file

from recmerge.data.dataset import Domain, Example, training_events
from recmerge.data.training_set import TrainingSet
from recmerge.names import ITEM_ID, POSITION, USER_ID
from recmerge.rankers.protocol import Scores, empty_scores, loading, read_card, training_domains, write_card

_PAIRS_FILE = "pairs.safetensors"
_PARTS = ("buyers", "pairs", "counts")
_WINDOW = 50  # places in a history that the two of a pair lie apart at most, so that a long history costs no more than its length
_PENDING = 20_000_000  # pairs held uncounted
_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Pairs:
    """Which of a domain's I items were bought together, P pairs in all.

    Args:
        places: Item id to its place.
        buyers: (I,) users who bought the item.
        pairs: (P,) smaller place * I + larger place, ascending.
        counts: (P,) users who bought both.
    """

    places: dict[str, int]
    buyers: _Counts
    pairs: _Counts
    counts: _Counts

    def __post_init__(self) -> None:
        if len(self.buyers) != len(self.places) or len(self.counts) != len(self.pairs):
            raise ValueError(f"{len(self.places)} items, {len(self.buyers)} buyers, {len(self.pairs)} pairs and {len(self.counts)} counts do not fit together")

    def shares(self, history: Sequence[str], candidates: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return (C,) sums over the history's H known items of the share of an item's buyers who also bought the candidate."""
        bought = np.asarray([self.places[item] for item in history if item in self.places], dtype=np.int64)[:, None]
        if not len(bought) or not len(self.pairs):
            return np.zeros(len(candidates))
        asked = np.asarray([self.places.get(item, -1) for item in candidates], dtype=np.int64)
        wanted = np.minimum(bought, asked) * len(self.places) + np.maximum(bought, asked)  # (H, C); below 0 for an unknown candidate
        at = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        together = np.where(self.pairs[at] == wanted, self.counts[at], 0)
        return (together / self.buyers[bought]).sum(axis=0)


class CooccurrenceRanker:
    """Scores an item by how many buyers of the user's items bought it too, in the training events of its own domain.

    The score is the sum over the user's history items h of P(item | h) = users who bought both / users who bought h.
    Items never bought score 0, and so does everything for a user without history.

    Source: M. Deshpande and G. Karypis, Item-based top-N recommendation algorithms, 2004, conditional probability-based
    similarity with no scaling by the item's own frequency.
    Departures: all neighbours are kept, not the k nearest of each item; a pair is counted where its items lie at most 50
    places apart in a history. Chosen on the validation events of Amazon Sports (35,598 users, NDCG@1/@5): .267/.380,
    against .241/.365 of the cosine, count / sqrt(users of one * users of the other). Counts with no normalisation at all
    reach .276/.384 there, by leaning on what is popular.

    Args:
        seed: Accepted like every ranker's; counts need none.
    """

    name = "cooccurrence"

    def __init__(self, *, seed: int = 42) -> None:
        self.seed = seed
        self.pairs: dict[str, _Pairs] = {}

    def fit(self, training: Domain | TrainingSet) -> None:
        """Count the buyers of every item and of every pair of items, domain by domain."""
        self.pairs = {domain.name: _bought_together(domain) for domain in training_domains(training)}

    def score(self, examples: Sequence[Example]) -> Scores:
        """Return (B, C) sums of shares, 0 or more; items and domains that were not trained on score 0."""
        scores = empty_scores(examples)
        for row, example in enumerate(examples):
            if example.domain in self.pairs:
                scores[row] = self.pairs[example.domain].shares(example.history, example.candidates)
        return scores

    def save(self, folder: Path) -> None:
        """Write the item ids as JSON and their counts as safetensors."""
        items = {domain: list(pairs.places) for domain, pairs in self.pairs.items()}
        write_card(folder, self.name, {"seed": self.seed, "items": items})
        save_file({f"{domain}.{part}": getattr(pairs, part) for domain, pairs in self.pairs.items() for part in _PARTS}, folder / _PAIRS_FILE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Args:
            folder: Where.

        Raises:
            ArtifactError: A file is missing, cannot be read, or does not fit the other.
        """
        settings, path = read_card(folder, self.name), folder / _PAIRS_FILE
        with loading(path):
            tensors = load_file(path)
            places = {domain: {item: place for place, item in enumerate(items)} for domain, items in settings["items"].items()}
            self.pairs = {domain: _Pairs(known, *(tensors[f"{domain}.{part}"] for part in _PARTS)) for domain, known in places.items()}
            self.seed = int(settings["seed"])


def _bought_together(domain: Domain) -> _Pairs:
    """Return the counts of a domain's training events; an item that a user bought twice counts once, where it was first bought."""
    events = training_events(domain).sort(USER_ID, POSITION).unique([USER_ID, ITEM_ID], keep="first", maintain_order=True)
    known = events[ITEM_ID].unique().sort().to_list()
    places = {item: place for place, item in enumerate(known)}
    items = np.asarray([places[item] for item in events[ITEM_ID]], dtype=np.int64)
    users = events.select(pl.col(USER_ID).rle_id().cast(pl.Int64)).to_series().to_numpy()
    pairs, counts = _count_pairs(users, items, len(known))
    return _Pairs(places, np.bincount(items, minlength=len(known)).astype(np.int64), pairs, counts)


def _count_pairs(users: _Counts, items: _Counts, n_items: int) -> tuple[_Counts, _Counts]:
    """Count pairs of items of one user, those next to each other first, then those one further apart.

    Args:
        users: (N,) ascending.
        items: (N,) places of distinct items of each user, in their order.
        n_items: How many items there are.

    Returns:
        (P,) smaller place * n_items + larger place, ascending, and (P,) how many users have both.
    """
    none = np.empty(0, np.int64)
    counted, pending = (none, none), [none]
    for distance in range(1, _WINDOW + 1):
        together = users[:-distance] == users[distance:]
        if not together.any():
            break
        one, other = items[:-distance][together], items[distance:][together]
        pending.append(np.minimum(one, other) * n_items + np.maximum(one, other))
        if sum(map(len, pending)) > _PENDING:
            counted, pending = _add(counted, pending), [none]
    return _add(counted, pending)


def _add(counted: tuple[_Counts, _Counts], pending: list[_Counts]) -> tuple[_Counts, _Counts]:
    """Return the counts with the pending pairs counted too."""
    new, n_new = np.unique(np.concatenate(pending), return_counts=True)
    pairs, place = np.unique(np.concatenate([counted[0], new]), return_inverse=True)
    counts = np.zeros(len(pairs), dtype=np.int64)
    np.add.at(counts, place, np.concatenate([counted[1], n_new]))
    return pairs, counts
