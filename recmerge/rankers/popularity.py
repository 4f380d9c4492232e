"""The floor that knows no user: what was bought most."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from recmerge.data.dataset import Domain, Example, training_events
from recmerge.data.training_set import TrainingSet
from recmerge.names import ITEM_ID
from recmerge.rankers.protocol import Scores, empty_scores, loading, read_card, training_domains, write_card

_COUNTS_FILE = "counts.safetensors"


class PopularityRanker:
    """Scores an item by its number of training events in its own domain; an item never bought scores 0.

    Source: the usual floor of the field (e.g. RecBole's Pop).
    Departures: none.

    Args:
        seed: Accepted like every ranker's; counts need none.
    """

    name = "popularity"

    def __init__(self, *, seed: int = 42) -> None:
        self.seed = seed
        self.counts: dict[str, dict[str, int]] = {}

    def fit(self, training: Domain | TrainingSet) -> None:
        """Count the training events of every item, domain by domain."""
        self.counts = {}
        for domain in training_domains(training):
            counted = training_events(domain).group_by(ITEM_ID).agg(pl.len()).sort(ITEM_ID)
            self.counts[domain.name] = dict(counted.iter_rows())

    def score(self, examples: Sequence[Example]) -> Scores:
        """Return (B, C) counts; items and domains that were not trained on score 0."""
        scores = empty_scores(examples)
        for row, example in enumerate(examples):
            counts = self.counts.get(example.domain, {})
            scores[row] = [counts.get(item, 0) for item in example.candidates]
        return scores

    def save(self, folder: Path) -> None:
        """Write the item ids as JSON and their counts as safetensors."""
        items = {domain: list(counts) for domain, counts in self.counts.items()}
        write_card(folder, self.name, {"seed": self.seed, "items": items})
        save_file({domain: np.asarray(list(counts.values()), dtype=np.int64) for domain, counts in self.counts.items()}, folder / _COUNTS_FILE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Args:
            folder: Where.

        Raises:
            ArtifactError: A file is missing, cannot be read, or does not fit the other.
        """
        settings, path = read_card(folder, self.name), folder / _COUNTS_FILE
        with loading(path):
            tensors = load_file(path)
            self.counts = {d: dict(zip(items, tensors[d].tolist(), strict=True)) for d, items in settings["items"].items()}
            self.seed = int(settings["seed"])
