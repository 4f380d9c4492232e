import numpy as np

from recmerge.data.dataset import Example
from recmerge.rankers.random import RandomRanker


def asked(n_users: int, n_candidates: int = 30) -> list[Example]:
    return [Example("d", f"u{u}", (), "i0", tuple(f"i{i}" for i in range(n_candidates))) for u in range(n_users)]


def test_every_place_is_equally_likely() -> None:
    scores = RandomRanker().score(asked(3000))
    places = (scores > scores[:, :1]).sum(axis=1)
    counts = np.bincount(places, minlength=30)
    # 100 expected in each of 30 places; the 99.9 % point of chi-square with 29 degrees of freedom is 58.3.
    assert ((counts - 100) ** 2 / 100).sum() < 58.3


def test_users_items_and_seeds_are_told_apart() -> None:
    scores = RandomRanker(seed=1).score(asked(50))
    assert len(np.unique(scores)) == scores.size
    assert (RandomRanker(seed=2).score(asked(50)) != scores).all()
    assert ((scores >= 0) & (scores < 1)).all()
