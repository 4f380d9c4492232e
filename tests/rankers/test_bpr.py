from functools import cache

import numpy as np
import pytest
from baskets import basket_domain, scores

from recmerge.rankers.bpr import BprRanker, BprSettings, _Factors


def test_products_and_biases_by_hand() -> None:
    ranker = BprRanker()
    items, users = np.asarray([[1, 2, 0.5], [0, -1, 0.25]]), np.asarray([[3, 4, 1.0]])
    ranker.learnt = {"sports": _Factors({"a": 0, "b": 1}, {"u1": 0}, items, users)}
    assert scores(ranker, "", "ab?", user="u1") == pytest.approx([1 * 3 + 2 * 4 + 0.5, -1 * 4 + 0.25, 0])
    assert scores(ranker, "a", "ab?", user="stranger") == pytest.approx([0.5, 0.25, 0])


def baskets() -> dict[str, str]:
    """Forty users of two kinds; each kind shares five letters."""
    draw = np.random.default_rng(0)
    return {f"u{u:02d}": "".join(draw.permutation(list("abcde" if u % 2 else "vwxyz"))[:3]) for u in range(40)}


def freshly_fitted(seed: int) -> BprRanker:
    pytest.importorskip("implicit.cpu.bpr")
    ranker = BprRanker(BprSettings(factors=8, iterations=100), seed=seed)
    ranker.fit(basket_domain(baskets()))
    return ranker


fitted = cache(freshly_fitted)


@pytest.mark.parametrize("user", ["u00", "u01", "u17", "u38"])
def test_the_kinds_are_told_apart(user: str) -> None:
    found = dict(zip("abcdevwxyz", scores(fitted(1), "", "abcdevwxyz", user=user), strict=True))
    others = "abcde" if baskets()[user][0] in "vwxyz" else "vwxyz"
    assert min(found[item] for item in baskets()[user]) > max(found[item] for item in others)


def test_seeds_repeat_and_differ() -> None:
    first, again, other = (scores(made, "", "abcdevwxyz", user="u01") for made in (fitted(1), freshly_fitted(1), fitted(2)))
    assert first == again != other
