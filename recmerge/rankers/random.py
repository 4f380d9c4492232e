"""The floor below every floor: candidates in random order."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from recmerge.data.dataset import Domain, Example
from recmerge.data.draws import Keys, combine, text_key, text_keys
from recmerge.data.training_set import TrainingSet
from recmerge.rankers.protocol import Ranker, Scores, empty_scores, read_card, write_card


class RandomRanker(Ranker):
    """Scores from 0 to below 1 that depend on (seed, user, item) alone, so that the order of users and candidates changes nothing."""

    name: ClassVar[str] = "random"

    def fit(self, training: Domain | TrainingSet) -> None:
        """Learn nothing."""

    def score(self, examples: Sequence[Example]) -> Scores:
        """Return (B, C) values."""
        scores = empty_scores(examples)
        for row, (user, example) in enumerate(zip(self._keys([e.user_id for e in examples]), examples, strict=True)):
            scores[row] = _between_0_and_1(combine(self._keys(example.candidates), user))
        return scores

    def score_all(self, examples: Sequence[Example], items: Sequence[str]) -> Scores:
        """Return (B, I) values."""
        users = self._keys([e.user_id for e in examples])
        return _between_0_and_1(combine(self._keys(items)[None, :], users[:, None]))

    def _keys(self, names: Sequence[str]) -> Keys:
        return text_keys(names, text_key(self.name, self.seed))

    def save(self, folder: Path) -> None:
        """Write the seed."""
        write_card(folder, self.name, {"seed": self.seed})

    def load(self, folder: Path) -> None:
        """Read the seed that `save` wrote."""
        self.seed = int(read_card(folder, self.name)["seed"])


def _between_0_and_1(keys: Keys) -> Scores:
    return (keys >> np.uint64(11)).astype(np.float64) / 2**53
