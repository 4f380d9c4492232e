from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recmerge.data.dataset import Domain, Example
from recmerge.data.training_set import TrainingSet
from recmerge.errors import ArtifactError
from recmerge.rankers import pairs
from recmerge.rankers.cooccurrence import CooccurrenceRanker, CooccurrenceSettings

# a: 3 buyers, b: 2, c: 2, d: 1; together: ab 2, ac 1, bc 1, cd 1
BASKETS = {"u1": "abc", "u2": "ab", "u3": "a", "u4": "cd"}


def domain(name: str = "sports", baskets: dict[str, str] | None = None) -> Domain:
    """Users' training events, one letter each in order; then everybody's validation event is y and test event z."""
    events = [
        (user, item, place, split)
        for user, bought in (BASKETS if baskets is None else baskets).items()
        for place, (item, split) in enumerate(zip([*bought, "y", "z"], ["train"] * len(bought) + ["valid", "test"], strict=True))
    ]
    schema = {"user_id": pl.String, "item_id": pl.String, "position": pl.Int32, "split": pl.String}
    empty = pl.DataFrame()
    return Domain(name, "clean", empty, pl.DataFrame(events, schema=schema, orient="row"), empty, empty, empty)


def scores(history: str, candidates: str, of: Domain | TrainingSet, name: str = "sports", **settings: int) -> list[float]:
    ranker = CooccurrenceRanker(CooccurrenceSettings(**settings))
    ranker.fit(of)
    return ranker.score([Example(name, "u", tuple(history), candidates[0], tuple(candidates))])[0].tolist()


def test_shares_by_hand() -> None:
    assert scores("a", "bcd", domain()) == pytest.approx([2 / 3, 1 / 3, 0])  # of a's 3 buyers
    assert scores("b", "acd", domain()) == pytest.approx([2 / 2, 1 / 2, 0])  # of b's 2
    assert scores("d", "abc", domain()) == pytest.approx([0, 0, 1])


def test_a_history_adds_up_by_hand() -> None:
    assert scores("ab", "cd", domain()) == pytest.approx([1 / 3 + 1 / 2, 0])
    assert scores("abc", "d", domain()) == pytest.approx([1 / 2])


def test_nothing_goes_with_itself() -> None:
    assert scores("a", "ab", domain()) == pytest.approx([0, 2 / 3])


def test_held_out_events_count_for_nothing() -> None:
    assert scores("abcd", "yz", domain()) == [0, 0]
    assert scores("yz", "abcd", domain()) == [0, 0, 0, 0]


def test_unknown_items_and_an_empty_history_score_zero() -> None:
    assert scores("", "abc", domain()) == [0, 0, 0]
    assert scores("?", "ab", domain()) == [0, 0]
    assert scores("a?", "?b", domain()) == pytest.approx([0, 2 / 3])
    assert scores("a", "ab", domain(baskets={"u1": "", "u2": ""})) == [0, 0]
    assert scores("a", "ab", domain(baskets={"u1": "a", "u2": "b"})) == [0, 0]


def test_what_was_bought_twice_counts_once() -> None:
    assert scores("a", "b", domain(baskets={"u1": "aabbab", "u2": "a"})) == pytest.approx([1 / 2])


def test_domains_are_counted_apart() -> None:
    mixed = TrainingSet("beauty_sports", {"sports": domain(), "beauty": domain("beauty", {"u1": "ac"})}, pl.DataFrame())
    assert scores("a", "bc", mixed) == pytest.approx([2 / 3, 1 / 3])
    assert scores("a", "bc", mixed, "beauty") == [0, 1]
    assert scores("a", "bc", mixed, "toys") == [0, 0]


@pytest.mark.parametrize("pending", [0, 5, 1000])
def test_pairs_far_apart_are_left_out(monkeypatch: pytest.MonkeyPatch, pending: int) -> None:
    monkeypatch.setattr(pairs, "_PENDING", pending)
    assert scores("a", "bcde", domain(baskets={"u1": "abcde", "u2": "ba", "u3": "aXXd"}), window=2) == pytest.approx([2 / 3, 1 / 3, 1 / 3, 0])


def test_counts_are_those_of_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_PENDING", 100)  # counted in many parts
    draw = np.random.default_rng(0)
    baskets = {f"u{u:02d}": "".join(draw.permutation(list("abcdefghij"))[: 2 + u % 8]) for u in range(40)}
    expected = [sum("a" in b and c in b for b in baskets.values()) / sum("a" in b for b in baskets.values()) for c in "bcdefghij"]
    assert scores("a", "bcdefghij", domain(baskets=baskets)) == pytest.approx(expected)


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    ranker = CooccurrenceRanker()
    ranker.fit(domain())
    ranker.save(tmp_path)
    card = tmp_path / "ranker.json"
    card.write_text(card.read_text().replace('"b",', ""))
    with pytest.raises(ArtifactError, match="do not fit together"):
        CooccurrenceRanker().load(tmp_path)
