"""The floor that reads titles and no behaviour: what is called like what was bought."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from recmerge.data.dataset import Domain, Example
from recmerge.data.training_set import TrainingSet
from recmerge.names import ITEM_ID, TITLE
from recmerge.rankers.protocol import Scores, empty_scores, loading, read_card, training_domains, write_card

_TITLES_FILE = "titles.safetensors"
_PARTS = ("starts", "words", "weights")
_WORD = re.compile(r"\w+")
_DECAY = 0.9  # what the weight of a purchase is multiplied by with every later one


@dataclass(frozen=True)
class _Titles:
    """The titles of a domain's I items as TF-IDF vectors of length 1 (0 where there is no word), N words in all.

    Args:
        places: Item id to its row.
        starts: (I + 1,) where the words of each row start.
        words: (N,) word numbers, ascending within a row.
        weights: (N,) their weights.
    """

    places: dict[str, int]
    starts: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        n_words = len(self.words)
        if len(self.starts) != len(self.places) + 1 or self.starts[-1] != n_words or len(self.weights) != n_words:
            raise ValueError(f"{len(self.places)} items, {len(self.starts)} starts, {n_words} words and {len(self.weights)} weights do not fit together")

    def look_up(self, items: Iterable[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the words of some items: the item's place among `items`, word and weight, (n,) each; unknown items have none."""
        known = [(place, self.places[item]) for place, item in enumerate(items) if item in self.places]
        place, row = np.asarray(known, dtype=np.int64).reshape(-1, 2).T
        sizes = self.starts[row + 1] - self.starts[row]
        ends = sizes.cumsum()
        at = np.arange(sizes.sum()) + np.repeat(self.starts[row] - ends + sizes, sizes)
        return np.repeat(place, sizes), self.words[at], self.weights[at]

    def similarities(self, history: Sequence[str], candidates: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the cosine (C,) of every candidate's title with the weighted sum of the history's titles."""
        bought = [item for item in history if item in self.places]
        place, words, weights = self.look_up(bought)
        profile = np.bincount(words, weights * _DECAY ** (len(bought) - 1 - place))
        length = np.linalg.norm(profile)
        if not length:
            return np.zeros(len(candidates))
        place, words, weights = self.look_up(candidates)
        shared = words < len(profile)  # the profile ends with its last word
        products = profile[words[shared]] * weights[shared]
        return np.bincount(place[shared], products, minlength=len(candidates)) / length


class TfidfRanker:
    """Scores an item by the cosine of its title with the titles of the user's history, both as TF-IDF vectors.

    Words are runs of letters, digits and underscores of any script, lower-cased; their inverse document frequency is
    ln((1 + n) / (1 + df)) + 1 over all n titles of the item's own domain, the catalogue, and nothing is learnt from what
    anybody bought. The history's vectors are summed, each purchase with 0.9 times the weight of the next. Items outside
    the catalogue score 0, and so does everything for a user without history.

    Source: G. Salton and C. Buckley, Term-weighting approaches in automatic text retrieval, 1988; the smoothed inverse
    document frequency is that of scikit-learn's TfidfTransformer.
    Departures: a word counts once per title, however often it is in it, and older purchases count less. Both chosen on the
    validation events of Amazon Sports (35,598 users, NDCG@1/@5): .224/.336 with neither, .226/.338 with words once,
    .230/.340 with both; decays of 0.8 (.229/.337) and 1/sqrt(age) (.230/.339), and word pairs beside words
    (.229/.340), were no better.

    Args:
        seed: Accepted like every ranker's; titles need none.
    """

    name = "tfidf"

    def __init__(self, *, seed: int = 42) -> None:
        self.seed = seed
        self.titles: dict[str, _Titles] = {}

    def fit(self, training: Domain | TrainingSet) -> None:
        """Weigh the words of every title, domain by domain; no event is looked at."""
        self.titles = {domain.name: _weighted(domain) for domain in training_domains(training)}

    def score(self, examples: Sequence[Example]) -> Scores:
        """Return (B, C) cosines from 0 to 1; items and domains outside the fitted catalogues score 0."""
        scores = empty_scores(examples)
        for row, example in enumerate(examples):
            if example.domain in self.titles:
                scores[row] = self.titles[example.domain].similarities(example.history, example.candidates)
        return scores

    def save(self, folder: Path) -> None:
        """Write the item ids as JSON and their vectors as safetensors."""
        items = {domain: list(titles.places) for domain, titles in self.titles.items()}
        write_card(folder, self.name, {"seed": self.seed, "items": items})
        save_file({f"{domain}.{part}": getattr(titles, part) for domain, titles in self.titles.items() for part in _PARTS}, folder / _TITLES_FILE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Args:
            folder: Where.

        Raises:
            ArtifactError: A file is missing, cannot be read, or does not fit the other.
        """
        settings, path = read_card(folder, self.name), folder / _TITLES_FILE
        with loading(path):
            tensors = load_file(path)
            places = {domain: {item: row for row, item in enumerate(items)} for domain, items in settings["items"].items()}
            self.titles = {domain: _Titles(known, *(tensors[f"{domain}.{part}"] for part in _PARTS)) for domain, known in places.items()}
            self.seed = int(settings["seed"])


def _weighted(domain: Domain) -> _Titles:
    """Return the vectors of a domain's whole catalogue."""
    found = [set(_WORD.findall(title.lower())) for title in domain.items[TITLE]]
    n_titles = Counter(word for words in found for word in words)
    numbers = {word: number for number, word in enumerate(sorted(n_titles))}
    idf = np.log((1 + len(found)) / (1 + np.asarray([n_titles[word] for word in numbers], dtype=np.int64))) + 1
    rows = [np.asarray(sorted(numbers[word] for word in words), dtype=np.int64) for words in found]
    starts = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    words = np.concatenate([np.empty(0, np.int64), *rows])
    weights = [idf[row] / np.linalg.norm(idf[row]) for row in rows if len(row)]
    places = {item: row for row, item in enumerate(domain.items[ITEM_ID])}
    return _Titles(places, starts, words, np.concatenate([np.empty(0), *weights]))
