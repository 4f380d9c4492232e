import polars as pl
import pytest

from recmerge.data.dataset import Domain, Example
from recmerge.data.training_set import TrainingSet
from recmerge.rankers.recent_popularity import RecentPopularityRanker, RecentPopularitySettings

DAY = 86_400


def domain(events: list[tuple[str, int | None]], name: str = "sports") -> Domain:
    """One user's training events as (item, day); then a validation and a test event of z, a thousand days later."""
    items, days = [*(item for item, _ in events), "z", "z"], [*(day for _, day in events), 1000, 1001]
    frame = pl.DataFrame(
        {"user_id": "u", "item_id": items, "timestamp": [None if d is None else d * DAY for d in days]}, schema_overrides={"timestamp": pl.Int64}
    )
    frame = frame.with_columns(split=pl.Series(["train"] * len(events) + ["valid", "test"]))
    empty = pl.DataFrame()
    return Domain(name, "clean", empty, frame, empty, empty, empty)


def fitted(of: Domain | TrainingSet, half_life_days: float = 10) -> RecentPopularityRanker:
    ranker = RecentPopularityRanker(RecentPopularitySettings(half_life_days=half_life_days))
    ranker.fit(of)
    return ranker


def scores(ranker: RecentPopularityRanker, candidates: str, name: str = "sports") -> list[float]:
    return ranker.score([Example(name, "u", ("a",), candidates[0], tuple(candidates))])[0].tolist()


def test_halves_by_hand() -> None:
    ranker = fitted(domain([("a", 0), ("a", 10), ("b", 20), ("c", 15)]))
    assert scores(ranker, "abcz?") == pytest.approx([1 / 4 + 1 / 2, 1, 2**-0.5, 0, 0])
    assert ranker.facts == {"undated_events": {"sports": 0}}


def test_a_long_half_life_is_plain_popularity() -> None:
    assert scores(fitted(domain([("a", 0), ("a", 10), ("b", 20)]), half_life_days=1e9), "ab") == pytest.approx([2, 1], abs=1e-6)


def test_events_without_a_time_weigh_the_mean_and_are_counted() -> None:
    ranker = fitted(domain([("a", 0), ("b", 10), ("b", 20), ("c", None), ("c", None), ("b", None)]))
    mean = (1 / 4 + 1 / 2 + 1) / 3
    assert scores(ranker, "abc") == pytest.approx([1 / 4, 3 / 2 + mean, 2 * mean])
    assert ranker.facts == {"undated_events": {"sports": 3}}


def test_without_any_time_it_is_plain_popularity() -> None:
    ranker = fitted(domain([("a", None), ("b", None), ("a", None)]))
    assert scores(ranker, "ab") == [2, 1]
    assert ranker.facts == {"undated_events": {"sports": 3}}


def test_domains_have_their_own_last_day() -> None:
    both = TrainingSet("beauty_sports", {"sports": domain([("a", 0), ("b", 10)]), "beauty": domain([("a", 500)], "beauty")}, pl.DataFrame())
    assert scores(fitted(both), "ab") == pytest.approx([1 / 2, 1])
    assert scores(fitted(both), "ab", "beauty") == [1, 0]
