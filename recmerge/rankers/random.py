"""The floor below every floor: candidates in random order."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recmerge.data.dataset import Domain, Example
from recmerge.data.draws import combine, text_key, text_keys
from recmerge.data.training_set import TrainingSet
from recmerge.rankers.protocol import Scores, empty_scores, read_card, write_card


class RandomRanker:
    """Scores that depend on (seed, user, item) alone, so that the order of users and candidates changes nothing.

    Args:
        seed: Another seed, another order.
    """

    name = "random"

    def __init__(self, *, seed: int = 42) -> None:
        self.seed = seed

    def fit(self, training: Domain | TrainingSet) -> None:
        """Learn nothing."""

    def score(self, examples: Sequence[Example]) -> Scores:
        """Return (B, C) values from 0 to below 1."""
        scores = empty_scores(examples)
        base = text_key(self.name, self.seed)
        users = text_keys([e.user_id for e in examples], base)
        for row, (user, example) in enumerate(zip(users, examples, strict=True)):
            keys = combine(text_keys(example.candidates, base), user)
            scores[row] = (keys >> np.uint64(11)).astype(np.float64) / 2**53
        return scores

    def save(self, folder: Path) -> None:
        """Write the seed."""
        write_card(folder, self.name, {"seed": self.seed})

    def load(self, folder: Path) -> None:
        """Read the seed that `save` wrote."""
        self.seed = int(read_card(folder, self.name)["seed"])
