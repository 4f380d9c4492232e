"""The floor that knows no user and forgets: what was bought most of late."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from recmerge.data.dataset import Domain
from recmerge.names import ITEM_ID, SPLIT, TIMESTAMP, TRAIN
from recmerge.rankers.per_domain import Numbers, PerDomainRanker, Places, expect_shape, place_by_id
from recmerge.rankers.protocol import RankerSettings, Scores

_DAY = 86_400  # seconds
_WEIGHT = "weight"


class RecentPopularitySettings(RankerSettings):
    """How fast the past is forgotten."""

    half_life_days: float = Field(180.0, gt=0, description="after which an event counts half")


@dataclass(frozen=True)
class _Weights:
    """How much a domain's I items were bought of late.

    Args:
        items: Item id to its place.
        weights: (I,) sums of the weights of their training events.
    """

    items: Places
    weights: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        expect_shape("weights", self.weights, len(self.items))


class RecentPopularityRanker(PerDomainRanker[_Weights]):
    """Scores an item by its training events, each weighing 0.5 ** (its age / the half-life); an item never bought scores 0.

    Ages are counted from the domain's last training event. An event without a time weighs as much as the mean of those with
    one, and where none has a time every event weighs 1, which is plain popularity; the run's facts count them.

    Source: Y. Ji, A. Sun, J. Zhang and C. Li, A re-visit of the popularity baseline in recommender systems, SIGIR 2020, DecayPop.
    Departures: there the past is counted from the moment that is predicted. Stored questions carry no time, so all are
    asked at the end of the training data; where each user's own last event is the test event, as by default, many were asked
    earlier. The half-life was chosen on validation events of Amazon Sports (5,000 users, NDCG@1/@5): .184/.327 with 180 days,
    against .177/.315 with 90, .184/.327 with 365 and .171/.320 of plain popularity.

    Args:
        settings: None: the defaults.
        seed: Accepted like every ranker's; counts need none.
    """

    name: ClassVar[str] = "recent_popularity"
    settings_class = RecentPopularitySettings
    settings: RecentPopularitySettings
    learnt_class = _Weights

    def learn(self, domain: Domain) -> _Weights:
        """Weigh the training events of every item."""
        events = domain.events.filter(pl.col(SPLIT) == TRAIN).select(ITEM_ID, TIMESTAMP)
        age = (pl.col(TIMESTAMP).max() - pl.col(TIMESTAMP)) / (_DAY * self.settings.half_life_days)
        events = events.with_columns((0.5**age).alias(_WEIGHT))
        self.facts.setdefault("undated_events", {})[domain.name] = events[_WEIGHT].null_count()
        undated = events[_WEIGHT].mean()
        summed = events.with_columns(pl.col(_WEIGHT).fill_null(1.0 if undated is None else undated)).group_by(ITEM_ID).agg(pl.col(_WEIGHT).sort().sum())
        summed = summed.sort(ITEM_ID)
        return _Weights(place_by_id(summed[ITEM_ID]), summed[_WEIGHT].to_numpy())

    def judge(self, learnt: _Weights, user_id: str, bought: Numbers, asked: Numbers) -> Scores:
        """Return (C,) sums of weights."""
        return learnt.weights[asked]
