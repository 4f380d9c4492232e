"""The floor that reads titles and no behaviour: what is called like what was bought."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recmerge.data.dataset import Domain
from recmerge.names import ITEM_ID, TITLE
from recmerge.rankers.per_domain import Numbers, PerDomainRanker, Places, age_weights, entries_of, expect_shape, place_by_id
from recmerge.rankers.protocol import RankerSettings, Scores

_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")  # from Thai to Chinese


class TfidfSettings(RankerSettings):
    """What of a history an item is compared with."""

    pooling: Literal["sum", "max"] = Field("sum", description="the sum of the bought titles' vectors, or the one title that is nearest")
    decay: float = Field(0.9, gt=0, le=1, description="what the weight of a purchase is multiplied by with every later one")
    last_n: int | None = Field(None, ge=1, description="only a user's last N known purchases count; null: all")


def words(title: str) -> set[str]:
    """Return the different words of a title.

    Args:
        title: Any text.

    Returns:
        Runs of letters, digits and underscores, lower-cased; of scripts that put no blanks between words, every two neighbouring letters.

    >>> sorted(words("Running Shoes 8, running")), sorted(words("跑步鞋 8"))
    (['8', 'running', 'shoes'], ['8', '步鞋', '跑步'])
    """
    found = set(_WORD.findall(title.lower()))
    if title.isascii():
        return found
    spaced = {part for word in found for part in _UNSPACED.split(word) if part}
    return spaced | {run[i : i + 2] for word in found for run in _UNSPACED.findall(word) for i in range(max(1, len(run) - 1))}


@dataclass(frozen=True)
class _Titles:
    """The titles of a domain's I items as TF-IDF vectors of length 1 (0 where there is no word), N words in all.

    Args:
        items: Item id to its row.
        starts: (I + 1,) where the words of each row start.
        words: (N,) word numbers, ascending within a row.
        weights: (N,) their weights.
    """

    items: Places
    starts: Numbers
    words: Numbers
    weights: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        expect_shape("starts", self.starts, len(self.items) + 1)
        expect_shape("words", self.words, self.starts[-1])
        expect_shape("weights", self.weights, self.starts[-1])


class TfidfRanker(PerDomainRanker[_Titles]):
    """Scores an item by the cosine of its title with the titles of the user's history, both as TF-IDF vectors.

    Words are runs of letters, digits and underscores of any script, lower-cased; of scripts that put no blanks between words, pairs of letters. Their
    inverse document frequency is ln((1 + n) / (1 + df)) + 1 over all n titles of the item's own domain, the catalogue, and nothing is learnt from what
    anybody bought. The history's vectors are summed, each purchase with `decay` times the weight of the next; with `pooling: max` the
    score is the cosine with the nearest of them. Items outside the catalogue score 0, and so does everything for a user without history.

    Source: G. Salton and C. Buckley, Term-weighting approaches in automatic text retrieval, 1988; the smoothed inverse
    document frequency is that of scikit-learn's TfidfTransformer.
    Departures: a word counts once per title, however often it is in it, and older purchases count less. Both chosen on the
    validation events of Amazon Sports (35,598 users, NDCG@1/@5): .224/.336 with neither, .226/.338 with words once,
    .230/.340 with both; decays of 0.8 (.229/.337) and 1/sqrt(age) (.230/.339), and word pairs beside words
    (.229/.340), were no better.

    Args:
        settings: None: the defaults.
    """

    name: ClassVar[str] = "tfidf"
    settings_class = TfidfSettings
    settings: TfidfSettings
    learnt_class = _Titles

    def learn(self, domain: Domain) -> _Titles:
        """Weigh the words of every title; no event is looked at."""
        found = self.terms(domain)
        n_titles = Counter(word for words in found for word in words)
        numbers = place_by_id(sorted(n_titles))
        idf = np.log((1 + len(found)) / (1 + np.asarray([n_titles[word] for word in numbers], dtype=np.int64))) + 1
        rows = [np.asarray(sorted(numbers[word] for word in words), dtype=np.int64) for words in found]
        starts = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        words = np.concatenate([np.empty(0, np.int64), *rows])
        weights = [idf[row] / np.linalg.norm(idf[row]) for row in rows if len(row)]
        return _Titles(place_by_id(domain.items[ITEM_ID]), starts, words, np.concatenate([np.empty(0), *weights]))

    def terms(self, domain: Domain) -> list[set[str]]:
        """Return the words of each item's title, in the catalogue's order."""
        return [words(title) for title in domain.items[TITLE]]

    def judge(self, learnt: _Titles, user_id: str, bought: Numbers, asked: Numbers) -> Scores:
        """Return the cosine (C,) of every asked title with what was bought, 0 to 1."""
        known = bought if self.settings.last_n is None else bought[-self.settings.last_n :]
        if self.settings.pooling == "sum":
            return _cosines(learnt, known, age_weights(len(known), self.settings.decay), asked)
        each = [_cosines(learnt, known[i : i + 1], np.ones(1), asked) for i in range(len(known))]
        return np.max([np.zeros(len(asked)), *each], axis=0)


def _cosines(titles: _Titles, bought: Numbers, weights: npt.NDArray[np.float64], asked: Numbers) -> Scores:
    """Return the cosine (C,) of every asked title with the weighted sum of the bought ones."""
    of, at = entries_of(titles.starts, bought)
    profile = np.bincount(titles.words[at], titles.weights[at] * weights[of])
    length = np.linalg.norm(profile)
    if not length:
        return np.zeros(len(asked))
    of, at = entries_of(titles.starts, asked)
    shared = titles.words[at] < len(profile)  # the profile ends with its last word
    of, at = of[shared], at[shared]
    cosines: Scores = np.bincount(of, profile[titles.words[at]] * titles.weights[at], minlength=len(asked)) / length
    return cosines
