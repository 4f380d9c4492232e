import numpy as np
import pytest
from baskets import basket_domain, scores

from recmerge.rankers.als import AlsRanker, AlsSettings, _Factors


def by_hand(factors: list[list[float]], **settings: float) -> AlsRanker:
    ranker = AlsRanker(AlsSettings(**settings))
    rows = np.asarray(factors)
    ranker.learnt = {"sports": _Factors({letter: row for row, letter in enumerate("abc"[: len(rows)])}, rows, rows.T @ rows)}
    return ranker


def test_a_user_is_solved_for_by_hand() -> None:
    # (1 + 4 + (3 - 1) * 1 + 1) x = 3 * 1
    ranker = by_hand([[1], [2]], alpha=3, regularization=1)
    assert scores(ranker, "a", "ab") == pytest.approx([3 / 8, 2 * 3 / 8])
    # (5 + 2 * 4 + 1) x = 3 * 2
    assert scores(ranker, "b", "ab") == pytest.approx([6 / 14, 2 * 6 / 14])
    assert scores(ranker, "ba", "ab") == pytest.approx([9 / 16, 2 * 9 / 16])


def test_factors_of_their_own_do_not_mix() -> None:
    ranker = by_hand([[1, 0], [0, 1]], alpha=5, regularization=1)
    assert scores(ranker, "a", "ab") == pytest.approx([5 / (1 + 4 + 1), 0])


def test_repeats_unknown_items_and_an_empty_history() -> None:
    ranker = by_hand([[1], [2]], alpha=3, regularization=1)
    assert scores(ranker, "aa?a", "ab") == scores(ranker, "a", "ab")
    assert scores(ranker, "a", "?a")[0] == 0
    assert scores(ranker, "", "ab") == [0, 0]


def baskets() -> dict[str, str]:
    """Forty users of two kinds; each kind shares five letters."""
    draw = np.random.default_rng(0)
    return {f"u{u:02d}": "".join(draw.permutation(list("abcde" if u % 2 else "vwxyz"))[:3]) for u in range(40)}


def test_users_are_those_of_the_library() -> None:
    als = pytest.importorskip("implicit.cpu.als")
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    settings = AlsSettings(factors=4, regularization=0.5, alpha=7, iterations=5)
    ranker = AlsRanker(settings, seed=3)
    ranker.fit(basket_domain(baskets()))
    letters = "abcdevwxyz"
    matrix = csr_matrix(np.asarray([[letter in bought for letter in letters] for bought in baskets().values()], dtype=np.float32))
    with threadpool_limits(1, "blas"):
        model = als.AlternatingLeastSquares(**settings.model_dump(), random_state=3)
        model.fit(matrix, show_progress=False)
        user = model.recalculate_user(0, matrix[0])
    assert scores(ranker, baskets()["u00"], letters) == pytest.approx((model.item_factors @ user).tolist(), abs=1e-5)


def test_the_kinds_are_told_apart() -> None:
    pytest.importorskip("implicit.cpu.als")
    ranker = AlsRanker(AlsSettings(factors=2, regularization=0.1, alpha=10))
    ranker.fit(basket_domain(baskets()))
    own, other = scores(ranker, "ab", "cdevwxyz")[:3], scores(ranker, "ab", "cdevwxyz")[3:]
    assert min(own) > 0.5 > 0.2 > max(other)
