from math import sqrt

import numpy as np
import pytest
from baskets import BASKETS, basket_domain, scores

from recmerge.rankers.itemknn import ItemKnnRanker, ItemKnnSettings

AB, AC, BC, CD = 2 / sqrt(3 * 2), 1 / sqrt(3 * 2), 1 / sqrt(2 * 2), 1 / sqrt(2 * 1)  # cosines of the columns


def fitted(baskets: dict[str, str] = BASKETS, **settings: object) -> ItemKnnRanker:
    plain = {"k": 100, "shrinkage": 0.0, "decay": 1.0}
    ranker = ItemKnnRanker(ItemKnnSettings(**{**plain, **settings}))
    ranker.fit(basket_domain(baskets))
    return ranker


def test_cosines_by_hand() -> None:
    assert scores(fitted(), "a", "bcd") == pytest.approx([AB, AC, 0])
    assert scores(fitted(), "c", "abd") == pytest.approx([AC, BC, CD])
    assert scores(fitted(), "ab", "cd") == pytest.approx([AC + BC, 0])


def test_nothing_is_its_own_neighbour() -> None:
    assert scores(fitted(), "a", "ab") == pytest.approx([0, AB])


def test_shrinkage_by_hand() -> None:
    assert scores(fitted(shrinkage=1), "a", "bc") == pytest.approx([2 / (sqrt(6) + 1), 1 / (sqrt(6) + 1)])


def test_an_item_hears_its_k_nearest_alone() -> None:
    # c is nearest to d (0.71), then b (0.5), then a (0.41)
    assert scores(fitted(k=1), "abd", "c") == pytest.approx([CD])
    assert scores(fitted(k=2), "abd", "c") == pytest.approx([CD + BC])
    assert scores(fitted(k=1), "ab", "c") == [0]


def test_equally_near_neighbours_are_kept_by_item_id() -> None:
    together = fitted({"u1": "cba"}, k=1)
    assert scores(together, "b", "a") == pytest.approx([1])
    assert scores(together, "c", "a") == [0]


def test_older_purchases_weigh_less_by_hand() -> None:
    assert scores(fitted(decay=0.5), "ab", "c") == pytest.approx([AC / 2 + BC])
    assert scores(fitted(decay=0.5), "ba", "c") == pytest.approx([AC + BC / 2])
    assert scores(fitted(decay=0.5), "a?b", "c") == pytest.approx([AC / 2 + BC])  # what is unknown is no purchase


def test_what_was_bought_twice_counts_once_and_last() -> None:
    assert scores(fitted(decay=0.5), "aba", "c") == pytest.approx([AC + BC / 2])
    assert scores(fitted({"u1": "aabbab", "u2": "a"}), "a", "b") == pytest.approx([1 / sqrt(2)])


def test_the_last_n_count() -> None:
    assert scores(fitted(last_n=1), "ab", "c") == pytest.approx([BC])
    assert scores(fitted(last_n=2), "abd", "c") == pytest.approx([BC + CD])


def test_pairs_far_apart_are_left_out() -> None:
    far = {"u1": "abc", "u2": "c"}
    assert scores(fitted(far, window=1), "a", "bc") == pytest.approx([1, 0])
    assert scores(fitted(far, window=None), "a", "bc") == pytest.approx([1, 1 / sqrt(2)])


def test_held_out_events_and_unknown_items_count_for_nothing() -> None:
    assert scores(fitted(), "abcd", "yz") == [0, 0]
    assert scores(fitted(), "yz?", "abcd") == [0, 0, 0, 0]
    assert scores(fitted(), "", "abcd") == [0, 0, 0, 0]


def test_scores_are_those_of_the_whole_matrix() -> None:
    draw = np.random.default_rng(0)
    bought = draw.random((60, 12)) < 0.3
    letters = np.asarray(list("abcdefghijkl"))
    ranker = fitted({f"u{u:02d}": "".join(draw.permutation(letters[row])) for u, row in enumerate(bought)}, k=4, shrinkage=2.5)
    columns = bought.astype(float)
    norms = np.linalg.norm(columns, axis=0)
    cosine = (columns.T @ columns) / (np.outer(norms, norms) + 2.5)
    np.fill_diagonal(cosine, 0)
    for column in cosine.T:
        column[np.argsort(-column, kind="stable")[4:]] = 0
    for history in ("a", "bdk", "lcafe"):
        expected = np.isin(letters, list(history)).astype(float) @ cosine
        assert scores(ranker, history, "abcdefghijkl") == pytest.approx(expected)
