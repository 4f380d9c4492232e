"""The floor that knows no user: what was bought most."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from recmerge.data.dataset import Domain, training_events
from recmerge.names import ITEM_ID
from recmerge.rankers.per_domain import Numbers, PerDomainRanker, Places, expect_shape, place_by_id
from recmerge.rankers.protocol import Scores


@dataclass(frozen=True)
class _Counts:
    """How often a domain's I items were bought.

    Args:
        items: Item id to its place.
        counts: (I,) training events.
    """

    items: Places
    counts: Numbers

    def __post_init__(self) -> None:
        expect_shape("counts", self.counts, len(self.items))


class PopularityRanker(PerDomainRanker[_Counts]):
    """Scores an item by its number of training events in its own domain; an item never bought scores 0.

    Source: the usual floor of the field (e.g. RecBole's Pop).
    Departures: none.
    """

    name: ClassVar[str] = "popularity"
    learnt_class = _Counts

    def learn(self, domain: Domain) -> _Counts:
        """Count the training events of every item."""
        counted = training_events(domain).group_by(ITEM_ID).agg(pl.len()).sort(ITEM_ID)
        return _Counts(place_by_id(counted[ITEM_ID]), counted["len"].to_numpy().astype(np.int64))

    def judge(self, learnt: _Counts, user_id: str, bought: Numbers, asked: Numbers) -> Scores:
        """Return (C,) counts."""
        return learnt.counts[asked].astype(np.float64)
