from collections import Counter

import numpy as np
import polars as pl
import pytest

from recmerge.data.candidates import clean_catalogue, codes, draw_negatives, published_catalogue, row_keys, with_answers, with_candidates
from recmerge.errors import DataError

SEED = 42


def catalogue_frames(n_items: int, owned: dict[str, list[int]], titles: dict[int, str] | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    items = pl.DataFrame({"item_id": [f"i{i:04d}" for i in range(n_items)], "title": [(titles or {}).get(i, f"Title {i}") for i in range(n_items)]})
    pairs = [(u, f"i{i:04d}") for u, own in owned.items() for i in own]
    return items, pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")


def asked(users: list[str], targets: list[int], positions: list[int] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": users, "position": positions or [3] * len(users), "target": [f"i{t:04d}" for t in targets]}, schema_overrides={"position": pl.Int32}
    )


def lists(rows: pl.DataFrame, items: pl.DataFrame, events: pl.DataFrame, n: int, seed: int = SEED) -> list[list[str]]:
    return with_candidates(rows, row_keys("d", "test", rows, seed), clean_catalogue(items, events), n)["candidates"].to_list()


def test_a_list_holds_its_target_once_distinct_titles_and_nothing_else_of_the_users() -> None:
    owned = {"u": [0, 1, 2, 3], "v": [4, 5, 6]}
    titles = {10: "Title 0", 11: "Title 12"}  # 10 looks like an item of u's; 11 and 12 look alike
    items, events = catalogue_frames(40, owned, titles)
    rows = asked(["u"] * 200 + ["v"] * 200, [3] * 200 + [6] * 200, list(range(400)))
    title = dict(items.iter_rows())
    for user, target, listed in zip(rows["user_id"], rows["target"], lists(rows, items, events, 20), strict=True):
        assert len(listed) == 20
        assert listed.count(target) == 1
        assert len({title[i] for i in listed}) == 20
        own_titles = {title[f"i{i:04d}"] for i in owned[user]}
        assert not own_titles & {title[i] for i in listed if i != target}


def test_a_draw_depends_on_its_own_row_alone() -> None:
    items, events = catalogue_frames(200, {"u": [0, 1], "v": [2, 3], "w": [4]})
    rows = asked(["u", "v", "w", "u"], [1, 3, 4, 0], [1, 1, 0, 0])
    whole = lists(rows, items, events, 30)
    backwards = lists(rows.reverse(), items, events, 30)[::-1]
    alone = [lists(rows[i], items, events, 30)[0] for i in range(4)]
    assert whole == backwards == alone
    assert whole != lists(rows, items, events, 30, seed=43)
    keys = {name: row_keys(domain, split, rows, SEED).tolist() for name, domain, split in (("a", "d", "test"), ("b", "d", "valid"), ("c", "e", "test"))}
    assert len({tuple(k) for k in keys.values()}) == 3


def test_the_smallest_catalogue_that_suffices_is_used_whole() -> None:
    items, events = catalogue_frames(6, {"u": [0, 1, 2]})
    [listed] = lists(asked(["u"], [2]), items, events, 4)
    assert sorted(listed) == ["i0002", "i0003", "i0004", "i0005"]


def test_one_item_too_few_says_how_many_there_are() -> None:
    items, events = catalogue_frames(6, {"u": [0, 1, 2]})
    with pytest.raises(DataError, match=r"n_candidates 5 needs 4 negatives.*'u' only 3 of 6") as caught:
        lists(asked(["u"], [2]), items, events, 5)
    assert "n_candidates=4" in caught.value.fix


def test_equal_titles_count_as_one() -> None:
    items, events = catalogue_frames(7, {"u": [0, 1, 2]}, {6: "Title 5"})
    with pytest.raises(DataError, match="only 3 of 6"):
        lists(asked(["u"], [2]), items, events, 5)


@pytest.mark.parametrize("n_items", [24, 60, 300])  # drawn whole; drawn with many refusals; drawn with few
def test_every_free_item_is_drawn_equally_often(n_items: int) -> None:
    own = list(range(4))
    items, events = catalogue_frames(n_items, {"u": own})
    rows = asked(["u"] * 4000, [0] * 4000, list(range(4000)))
    drawn = Counter(i for listed in lists(rows, items, events, 11) for i in listed if i != "i0000")
    n_free = n_items - len(own)
    expected, spread = 4000 * 10 / n_free, np.sqrt(4000 * 10 / n_free)
    assert set(drawn) == {f"i{i:04d}" for i in range(4, n_items)}
    assert all(abs(n - expected) < 5 * spread for n in drawn.values())


def test_the_target_stands_at_every_place_equally_often() -> None:
    items, events = catalogue_frames(100, {"u": [0]})
    rows = asked(["u"] * 5000, [0] * 5000, list(range(5000)))
    places = Counter(listed.index("i0000") for listed in lists(rows, items, events, 5))
    assert all(abs(places[p] - 1000) < 5 * np.sqrt(1000 * 0.8) for p in range(5))


def test_a_user_who_owns_nearly_everything_still_gets_an_exact_draw() -> None:
    items, events = catalogue_frames(400, {"u": list(range(385)), "v": [0]})
    rows = asked(["u", "v"], [0, 0])
    of_u, of_v = lists(rows, items, events, 16)
    assert sorted(set(of_u) - {"i0000"}) == [f"i{i:04d}" for i in range(385, 400)]
    assert len(set(of_v)) == 16


def test_a_wider_draw_begins_with_the_narrower_one() -> None:
    items, events = catalogue_frames(500, {"u": [0]})
    catalogue = clean_catalogue(items, events)
    rows = asked(["u"] * 50, [0] * 50, list(range(50)))
    keys, owners = row_keys("d", "test", rows, SEED), codes(rows["user_id"], catalogue.users)
    few, many = draw_negatives(keys, owners, catalogue, 5), draw_negatives(keys, owners, catalogue, 12)
    assert np.array_equal(few, many[:, :5])


def test_published_negatives_exclude_nothing_but_differ_from_each_other() -> None:
    items, events = catalogue_frames(12, {"u": [0, 1, 2]}, {5: "Title 6"})
    rows = asked(["u"] * 600, [2] * 600, list(range(600)))
    listed = with_candidates(rows, row_keys("d", "test", rows, SEED), published_catalogue(items, events), 11)["candidates"].to_list()
    again = [x for x in listed if x.count("i0002") == 2]
    # ten of twelve items are drawn besides the target, so the target comes again in 10/12 of the lists
    assert abs(len(again) - 500) < 5 * np.sqrt(600 * 10 / 12 * 2 / 12)
    assert all(len(set(x)) >= 10 for x in listed)
    assert any("i0000" in x for x in listed)
    assert any("i0005" in x and "i0006" in x for x in listed)


def test_published_answers_hold_the_target_and_four_negatives_of_the_row() -> None:
    rows = pl.DataFrame({"user_id": ["u"] * 300, "position": range(300), "target": ["t"] * 300, "candidates": [list("abctdef")] * 300})
    keys = row_keys("d", "train", rows, SEED)
    answers = with_answers(rows, keys)["answer"].to_list()
    assert all(len(a) == 5 and a[0] == "t" and len(set(a)) == 5 and set(a) <= set("abctdef") for a in answers)
    assert set(Counter(i for a in answers for i in a[1:])) == set("abcdef")
    assert len({tuple(a) for a in answers}) > 100


def test_a_published_answer_may_repeat_a_target_drawn_as_a_negative() -> None:
    rows = pl.DataFrame({"user_id": ["u"], "position": [1], "target": ["t"], "candidates": [list("ttabc")]})
    [answer] = with_answers(rows, row_keys("d", "train", rows, SEED))["answer"].to_list()
    assert answer[0] == "t"
    assert sorted(answer) == list("abctt")
