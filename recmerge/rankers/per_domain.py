"""What the rankers share that learn each domain by itself: the loops, and the files."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from recmerge.data.dataset import Domain, Example
from recmerge.data.training_set import TrainingSet
from recmerge.rankers.protocol import Ranker, RankerSettings, Scores, empty_scores, loading, read_card, training_domains, write_card

Places = dict[str, int]  # ids to the numbers 0, 1, ...
Numbers = npt.NDArray[np.int64]

_TENSORS_FILE = "learnt.safetensors"


class Learnt(Protocol):
    """What is known of one domain: a frozen dataclass of `Places`, `items` among them, and of arrays.

    Its `__post_init__` refuses with a ValueError parts that do not fit together.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def items(self) -> Places:
        """The items that it knows."""


L = TypeVar("L", bound=Learnt)


class PerDomainRanker(Ranker, Generic[L]):
    """A ranker that learns each domain by itself; items and domains that it has not learnt score 0.

    Args:
        settings: Of the ranker's own `settings_class`; None: the defaults.
        seed: Of whatever it draws.
    """

    learnt_class: ClassVar[type[Any]]

    def __init__(self, settings: RankerSettings | None = None, *, seed: int = 42) -> None:
        super().__init__(settings, seed=seed)
        self.learnt: dict[str, L] = {}

    @abstractmethod
    def learn(self, domain: Domain) -> L:
        """Learn one domain.

        Args:
            domain: Whose training events, and item titles, may be looked at.

        Returns:
            Everything that `judge` needs.
        """

    @abstractmethod
    def judge(self, learnt: L, user_id: str, bought: Numbers, asked: Numbers) -> Scores:
        """Score items for one user.

        Args:
            learnt: What is known of the user's domain.
            user_id: Who is asked for.
            bought: (H,) places of the known items of the user's history, oldest first; may be empty.
            asked: (C,) places of items.

        Returns:
            (C,) finite values, each independent of the other items asked.
        """

    def fit(self, training: Domain | TrainingSet) -> None:
        """Learn domain by domain."""
        self.facts = {}
        self.learnt = {domain.name: self.learn(domain) for domain in training_domains(training)}

    def score(self, examples: Sequence[Example]) -> Scores:
        """Return (B, C) scores; items and domains that were not learnt score 0."""
        scores = empty_scores(examples)
        for row, example in enumerate(examples):
            if example.domain in self.learnt:
                asked = places_of(self.learnt[example.domain].items, example.candidates)
                self._score_row(scores[row], example, asked)
        return scores

    def score_all(self, examples: Sequence[Example], items: Sequence[str]) -> Scores:
        """Return (B, I) scores of the same I items for each of B users, as `score` gives them."""
        scores = np.zeros((len(examples), len(items)))
        asked = {domain: places_of(learnt.items, items) for domain, learnt in self.learnt.items()}
        for row, example in enumerate(examples):
            if example.domain in self.learnt:
                self._score_row(scores[row], example, asked[example.domain])
        return scores

    def _score_row(self, row: Scores, example: Example, asked: Numbers) -> None:
        learnt, known = self.learnt[example.domain], asked >= 0
        bought = places_of(learnt.items, example.history)
        row[known] = self.judge(learnt, example.user_id, bought[bought >= 0], asked[known])

    def save(self, folder: Path) -> None:
        """Write ids and settings as JSON and arrays as safetensors."""
        ids: dict[str, dict[str, list[str]]] = {}
        tensors: dict[str, npt.NDArray[Any]] = {}
        for domain, learnt in self.learnt.items():
            parts = {field.name: getattr(learnt, field.name) for field in fields(learnt)}
            ids[domain] = {name: list(part) for name, part in parts.items() if isinstance(part, dict)}
            tensors |= {f"{domain}.{name}": np.ascontiguousarray(part) for name, part in parts.items() if not isinstance(part, dict)}
        write_card(folder, self.name, {"seed": self.seed, "settings": self.settings.model_dump(mode="json"), "ids": ids})
        save_file(tensors, folder / _TENSORS_FILE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Args:
            folder: Where.

        Raises:
            ArtifactError: A file is missing, cannot be read, or does not fit the other.
        """
        card, path = read_card(folder, self.name), folder / _TENSORS_FILE
        with loading(path):
            tensors = load_file(path)
            names = [field.name for field in fields(self.learnt_class)]
            learnt = {
                domain: self.learnt_class(**{name: place_by_id(ids[name]) if name in ids else tensors[f"{domain}.{name}"] for name in names})
                for domain, ids in card["ids"].items()
            }
            self.seed, self.settings = int(card["seed"]), self.settings_class(**card["settings"])
        self.learnt = learnt


def place_by_id(ids: Iterable[str]) -> Places:
    """Number distinct ids 0, 1, ... in their order."""
    return {name: place for place, name in enumerate(ids)}


def places_of(places: Places, ids: Sequence[str]) -> Numbers:
    """Return the place of each id; -1 for an unknown one."""
    return np.asarray([places.get(name, -1) for name in ids], dtype=np.int64)


def expect_shape(what: str, array: npt.NDArray[Any], *shape: int) -> None:
    """Refuse an array that does not fit the other parts of what was learnt.

    Args:
        what: Of the array, in words.
        array: The array.
        *shape: What its shape must be.

    Raises:
        ValueError: It has another shape.
    """
    if array.shape != shape:
        raise ValueError(f"{what} of shape {array.shape} and {shape} expected do not fit together")


def age_weights(n: int, decay: float) -> Scores:
    """Return (n,) weights of purchases, oldest first: 1 for the newest, each older one `decay` times the next."""
    return np.power(decay, np.arange(n - 1, -1, -1, dtype=np.float64))


def entries_of(starts: Numbers, rows: Numbers) -> tuple[Numbers, Numbers]:
    """Find the entries of some rows of a ragged array.

    Args:
        starts: (I + 1,) where each row's entries start, and the end of the last.
        rows: (n,) row numbers.

    Returns:
        (N,) which of `rows` each entry is of, 0 to n - 1 ascending, and (N,) where it stands.
    """
    sizes = starts[rows + 1] - starts[rows]
    at = np.arange(sizes.sum()) + np.repeat(starts[rows] - sizes.cumsum() + sizes, sizes)
    return np.repeat(np.arange(len(rows)), sizes), at
