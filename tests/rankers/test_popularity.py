import polars as pl
import pytest

from recmerge.data.dataset import Domain, Example
from recmerge.data.training_set import TrainingSet
from recmerge.rankers.popularity import PopularityRanker


def domain(name: str, bought: str) -> Domain:
    """One user's training events, one letter each, then one validation and one test event of item z."""
    items = [*bought, "z", "z"]
    events = pl.DataFrame({"user_id": ["u"] * len(items), "item_id": items, "timestamp": [0] * len(items), "position": range(len(items))}).with_columns(
        split=pl.Series(["train"] * len(bought) + ["valid", "test"])
    )
    empty = pl.DataFrame()
    return Domain(name, "clean", empty, events, empty, empty, empty)


def asked(name: str) -> list[Example]:
    return [Example(name, "u", ("a",), "a", ("z", "b", "a", "other"))]


def test_counts_by_hand() -> None:
    ranker = PopularityRanker()
    ranker.fit(domain("sports", "abaac"))
    assert ranker.score(asked("sports")).tolist() == [[0, 1, 3, 0]]


def test_domains_are_counted_apart() -> None:
    ranker = PopularityRanker()
    ranker.fit(TrainingSet("beauty_sports", {"sports": domain("sports", "aab"), "beauty": domain("beauty", "b")}, pl.DataFrame()))
    assert ranker.score(asked("sports")).tolist() == [[0, 1, 2, 0]]
    assert ranker.score(asked("beauty")).tolist() == [[0, 1, 0, 0]]
    assert ranker.score(asked("toys")).tolist() == [[0, 0, 0, 0]]


def test_lists_of_unequal_length_are_refused() -> None:
    ranker = PopularityRanker()
    ranker.fit(domain("sports", "a"))
    with pytest.raises(ValueError, match="1 to 4 candidates"):
        ranker.score([*asked("sports"), Example("sports", "u", (), "a", ("a",))])
